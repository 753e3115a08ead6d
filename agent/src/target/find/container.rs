//! The container's id in a process's cgroup, as the container engines write it. Pure text.

const ID: usize = 64;

/// The 64 hexadecimal digits in the innermost path component that has them; None outside of containers.
///
/// Known forms, for cgroup v1 and v2: `/docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `…:cri-containerd:ID`, `crio-ID.scope`, `libpod-ID.scope/container`, `/kubepods/…/ID`. From inside a
/// cgroup namespace the path begins with `/..`. An engine's own monitor (`conmon`) is no container.
pub fn id(cgroup: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(cgroup);
    text.lines().find_map(|line| {
        // `hierarchy:controllers:path`; the path may hold colons itself.
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(in_component)
    })
}

fn in_component(component: &str) -> Option<String> {
    if component.contains("conmon-") {
        return None;
    }
    let mut words = component.split(|c: char| !c.is_ascii_alphanumeric());
    let is_id =
        |w: &&str| w.len() == ID && w.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    words.rfind(is_id).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_s_form_is_read() {
        let want = "0123456789abcdef".repeat(4);
        let pod = "kubepods-burstable-pod3b1c0ffe_0000_4000_8000_000000000000.slice";
        for cgroup in [
            format!("12:cpu,cpuacct:/docker/{want}\n0::/\n"),
            format!("0::/system.slice/docker-{want}.scope\n"),
            format!("0::/../../{pod}/cri-containerd-{want}.scope\n"),
            format!("0::/../cri-containerd-{want}.scope\n"),
            format!("3:memory:/system.slice/containerd.service/{pod}:cri-containerd:{want}\n"),
            format!("0::/kubepods.slice/{pod}/crio-{want}.scope/container\n"),
            format!("0::/machine.slice/libpod-{want}.scope/container\n"),
            format!("5:pids:/kubepods/besteffort/pod3b1c0ffe-0000-4000-8000-000000000000/{want}\n"),
        ] {
            assert_eq!(id(cgroup.as_bytes()).as_deref(), Some(want.as_str()), "{cgroup}");
        }
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        let id64 = "0123456789abcdef".repeat(4);
        for cgroup in [
            "0::/user.slice/user-1000.slice\n".to_owned(),
            "0::/\n".to_owned(),
            String::new(),
            "garbage".to_owned(),
            format!("0::/machine.slice/libpod-conmon-{id64}.scope\n"),
            format!("0::/x/{id64}0\n"),
        ] {
            assert_eq!(id(cgroup.as_bytes()), None, "{cgroup}");
        }
    }

    #[test]
    fn of_nested_containers_the_inner_one_counts() {
        let (outer, inner) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(id(format!("0::/docker/{outer}/docker/{inner}\n").as_bytes()), Some(inner));
    }
}
