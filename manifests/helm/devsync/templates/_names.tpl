{{- /* What belongs to the whole cluster has one name for each installation. */ -}}
{{- define "devsync.cluster" -}}
{{- if eq .Release.Namespace "devsync-system" }}devsync-injector{{ else }}devsync-injector-{{ .Release.Namespace }}{{ end -}}
{{- end -}}
{{- define "devsync.labels" -}}
app.kubernetes.io/name: devsync-injector
app.kubernetes.io/part-of: devsync
{{- end -}}
