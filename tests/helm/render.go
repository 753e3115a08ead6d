// Renders a chart's templates as Helm does, as far as this repository's chart uses it: text/template, sprig, include,
// toYaml. Usage: render CHART NAMESPACE API_VERSION… <values.json
// It stands in where no helm can be had; Helm itself is not run.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
)

type versions []string

// Has is what Helm's .Capabilities.APIVersions has.
func (all versions) Has(wanted string) bool {
	for _, version := range all {
		if version == wanted {
			return true
		}
	}
	return false
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func main() {
	var values map[string]interface{}
	check(json.NewDecoder(os.Stdin).Decode(&values))
	all := template.New("chart").Option("missingkey=error").Funcs(sprig.TxtFuncMap())
	all.Funcs(template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var text strings.Builder
			err := all.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
		// JSON is YAML; its form is not compared.
		"toYaml": func(value interface{}) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
	})
	files, err := filepath.Glob(filepath.Join(os.Args[1], "templates", "*"))
	check(err)
	_, err = all.ParseFiles(files...)
	check(err)
	data := map[string]interface{}{
		"Values":       values,
		"Release":      map[string]interface{}{"Name": "devsync", "Namespace": os.Args[2]},
		"Capabilities": map[string]interface{}{"APIVersions": versions(os.Args[3:])},
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".yaml") {
			fmt.Println("---")
			check(all.ExecuteTemplate(os.Stdout, filepath.Base(file), data))
		}
	}
}
