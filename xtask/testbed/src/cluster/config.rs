//! The components' configuration files. Each unusual setting says why it is there. JSON is YAML.

use std::path::Path;

use serde_json::{Value, json};

use super::options::Options;
use super::tools::Tools;

/// The sandbox image of every pod, in the open registry.
pub(crate) const PAUSE: &str = "testbed/pause:1";

/// KubeletConfiguration.
pub(crate) fn kubelet(options: &Options) -> Value {
    let node_ip = options.network.node_ip();
    let path = |name: &str| options.path(name).display().to_string();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Since 1.35 the default is true: the kubelet refuses to start on a cgroup v1 host.
        "failCgroupV1": false,
        // No systemd runs in the node that could serve the systemd driver.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", options.name),
        "containerRuntimeEndpoint": format!("unix://{}", path("containerd.sock")),
        "address": node_ip,
        "port": 10250,
        "readOnlyPort": 0,
        "healthzBindAddress": node_ip,
        "healthzPort": 10248,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": path("pki/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": path("pki/kubelet-server.crt"),
        "tlsPrivateKeyFile": path("pki/kubelet-server.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [options.network.dns_ip()],
        // The host's would hand its search domains and resolvers to the pods.
        "resolvConf": path("conf/resolv.conf"),
        "failSwapOn": false,
        "nodeStatusUpdateFrequency": "5s",
        "podLogsDir": path("pod-logs"),
        "volumePluginDir": path("volume-plugins"),
        // The disk is the host's: how full it is must evict neither pods nor images.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
        },
        // Pulls do not wait for one another: a slow one must not look like a failure of the next.
        "serializeImagePulls": false,
        // The default, -999, needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
    })
}

/// KubeProxyConfiguration.
pub(crate) fn kube_proxy(options: &Options) -> Value {
    let node_ip = options.network.node_ip();
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": node_ip,
        "healthzBindAddress": format!("{node_ip}:10256"),
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": options.node_name(),
        "clusterCIDR": options.network.pod_cidr(),
        "clientConnection": { "kubeconfig": options.path("conf/proxy.kubeconfig") },
        "nodePortAddresses": [format!("{node_ip}/32")],
        // 0 leaves it alone: nf_conntrack_max is read-only outside of the first network namespace,
        // and kube-proxy exits when it cannot write it.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "oomScoreAdj": 0,
    })
}

/// The network of the pods.
pub(crate) fn cni(options: &Options) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": options.path("cni-ipam"),
                    "ranges": [[{ "subnet": options.network.pod_cidr() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// A registry on every address of the node: its loopback for containerd, the link for the host.
pub(crate) fn registry(folder: &Path, port: u16, htpasswd: Option<&Path>) -> Value {
    let mut config = json!({
        "version": "0.1",
        "log": { "level": "warn" },
        "storage": {
            "filesystem": { "rootdirectory": folder },
            "delete": { "enabled": true },
            "maintenance": { "uploadpurging": { "enabled": false } },
        },
        "http": { "addr": format!("0.0.0.0:{port}") },
    });
    if let Some(path) = htpasswd {
        config["auth"] = json!({ "htpasswd": { "realm": "testbed", "path": path } });
    }
    config
}

/// How containerd reaches a registry: plain HTTP on the node's loopback.
pub(crate) fn registry_hosts(registry: &str) -> String {
    format!("server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

/// What pods resolve without help: fixed names. There is no CoreDNS.
pub(crate) fn dnsmasq(options: &Options) -> String {
    format!(
        "listen-address={}\nbind-interfaces\nno-resolv\nno-hosts\nuser=root\ngroup=root\n\
         address=/kubernetes.default.svc.cluster.local/{}\naddress=/metadata.google.internal/{}\n\
         local=/cluster.local/\n",
        options.network.node_ip(),
        options.network.api_ip(),
        super::network::METADATA,
    )
}

/// containerd's; its format changed with 2.0.
pub(crate) fn containerd(options: &Options, tools: &Tools) -> String {
    let root = options.root.display();
    let (runc, cni, pause) =
        (tools.runc.display(), tools.cni.display(), format!("{}/{PAUSE}", options.network.registry()));
    let first = tools.containerd.split_ascii_whitespace().find_map(|word| {
        let number = word.trim_start_matches('v').split('.').next()?;
        number.parse::<u32>().ok().filter(|_| word.contains('.'))
    });
    let head = |version: u32, unused: &str| {
        // Snapshotters that nobody uses; "opt" would make /opt/containerd on the host.
        format!(
            "version = {version}\nroot = \"{root}/containerd\"\nstate = \"{root}/containerd-state\"\n\
             disabled_plugins = [{unused}, \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \
             \"io.containerd.tracing.processor.v1.otlp\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = \"{root}/containerd.sock\"\n"
        )
    };
    // disable_apparmor loads no profile into the host's kernel; restrict_oom_score_adj does without
    // CAP_SYS_RESOURCE. The node has no systemd, hence cgroupfs, as in the kubelet's.
    if first.is_some_and(|major| major < 2) {
        let head = head(2, "\"io.containerd.snapshotter.v1.aufs\"");
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        return format!(
            "{head}[{cri}]\n  sandbox_image = \"{pause}\"\n  disable_apparmor = true\n  restrict_oom_score_adj = true\n\
             [{cri}.registry]\n  config_path = \"{root}/conf/registries\"\n\
             [{cri}.containerd]\n  snapshotter = \"overlayfs\"\n  default_runtime_name = \"runc\"\n\
             [{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
             [{cri}.containerd.runtimes.runc.options]\n  BinaryName = \"{runc}\"\n  SystemdCgroup = false\n\
             [{cri}.cni]\n  bin_dir = \"{cni}\"\n  conf_dir = \"{root}/conf/cni\"\n"
        );
    }
    let head = head(3, "\"io.containerd.snapshotter.v1.blockfile\", \"io.containerd.snapshotter.v1.erofs\"");
    let (images, runtime) = ("plugins.'io.containerd.cri.v1.images'", "plugins.'io.containerd.cri.v1.runtime'");
    // Without the image verifier the CRI image service of 2.1 does not load: it gets a folder that
    // does not exist, which means that there are no verifiers.
    format!(
        "{head}[plugins.'io.containerd.image-verifier.v1.bindir']\n  bin_dir = \"{root}/no-verifiers\"\n\
         [plugins.'io.containerd.nri.v1.nri']\n  disable = true\n\
         [{images}]\n  snapshotter = \"overlayfs\"\n[{images}.pinned_images]\n  sandbox = \"{pause}\"\n\
         [{images}.registry]\n  config_path = \"{root}/conf/registries\"\n\
         [{runtime}]\n  disable_apparmor = true\n  restrict_oom_score_adj = true\n\
         [{runtime}.containerd]\n  default_runtime_name = \"runc\"\n\
         [{runtime}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
         [{runtime}.containerd.runtimes.runc.options]\n  BinaryName = \"{runc}\"\n  SystemdCgroup = false\n\
         [{runtime}.cni]\n  bin_dirs = [\"{cni}\"]\n  conf_dir = \"{root}/conf/cni\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    fn check(version: &str, expected: &str) {
        let tools = Tools {
            path: Vec::new(),
            runc: "/sbin/runc".into(),
            cni: "/cni".into(),
            postgresql: "/pg".into(),
            busybox: "/bb".into(),
            containerd: version.into(),
        };
        let options = Options::new(Path::new("/repo"), "/cache".into(), Vec::new());
        let config = containerd(&options, &tools);
        assert!(config.starts_with(expected), "{version}: {config}");
    }

    #[test]
    fn containerd_gets_the_format_of_its_version() {
        check("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", "version = 2\n");
        check("containerd github.com/containerd/containerd/v2 v2.1.9 abcdef", "version = 3\n");
        check("containerd containerd.io 1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182", "version = 2\n");
        check("something that nobody has seen", "version = 3\n");
    }
}
