package deploy

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var hostRoot = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}

// Each breaks one rule in a valid pod, which the policy must detect.
var unbounded = corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}

var breaches = map[string]func(*workload){
	"root":                  func(w *workload) { w.pod().SecurityContext.RunAsNonRoot = ptr.To(false) },
	"user 0":                func(w *workload) { w.pod().SecurityContext.RunAsUser = ptr.To[int64](0) },
	"user of a container":   func(w *workload) { w.container().SecurityContext.RunAsUser = ptr.To[int64](1) },
	"no seccomp":            func(w *workload) { w.pod().SecurityContext.SeccompProfile = nil },
	"capabilities kept":     func(w *workload) { w.container().SecurityContext.Capabilities = nil },
	"privilege escalation":  func(w *workload) { w.container().SecurityContext.AllowPrivilegeEscalation = nil },
	"host network":          func(w *workload) { w.pod().HostNetwork = true },
	"host path":             func(w *workload) { w.pod().Volumes[0].VolumeSource = hostRoot },
	"writable root":         func(w *workload) { w.container().SecurityContext.ReadOnlyRootFilesystem = nil },
	"writable mount":        func(w *workload) { w.container().VolumeMounts[0].ReadOnly = false },
	"unbounded emptyDir":    func(w *workload) { w.pod().Volumes[0].EmptyDir = &unbounded },
	"unbounded disk":        func(w *workload) { delete(w.container().Resources.Limits, corev1.ResourceEphemeralStorage) },
	"token":                 func(w *workload) { w.pod().AutomountServiceAccountToken = nil },
	"default account":       func(w *workload) { w.pod().ServiceAccountName = "default" },
	"no memory limit":       func(w *workload) { delete(w.container().Resources.Limits, corev1.ResourceMemory) },
	"no cpu request":        func(w *workload) { delete(w.container().Resources.Requests, corev1.ResourceCPU) },
	"cpu limit":             func(w *workload) { w.container().Resources.Limits["cpu"] = resource.MustParse("1") },
	"latest":                func(w *workload) { w.container().Image = "runnel-sse:latest" },
	"no tag":                func(w *workload) { w.container().Image = "runnel-sse" },
	"pulled always":         func(w *workload) { w.container().ImagePullPolicy = corev1.PullAlways },
	"no startup probe":      func(w *workload) { w.container().StartupProbe = nil },
	"no readiness probe":    func(w *workload) { w.container().ReadinessProbe = nil },
	"liveness by readiness": func(w *workload) { w.container().LivenessProbe.HTTPGet.Path = "/readyz" },
	"probe of another port": func(w *workload) { w.container().ReadinessProbe.HTTPGet.Port = intstr.FromString("http") },
	"admin elsewhere":       func(w *workload) { w.flags["admin_listen"] = "0.0.0.0:9091" },
	"no preStop":            func(w *workload) { w.container().Lifecycle = nil },
	"short grace":           func(w *workload) { w.pod().TerminationGracePeriodSeconds = ptr.To[int64](44) },
	"default grace":         func(w *workload) { w.pod().TerminationGracePeriodSeconds = nil },
	"long drain":            func(w *workload) { w.flags["drain_timeout"] = "5m" },
	"long notice":           func(w *workload) { w.flags["drain_notice"] = "1m" },
	"drain by default":      func(w *workload) { delete(w.flags, "drain_timeout") },
	"gap in a roll":         func(w *workload) { w.Spec.Strategy.RollingUpdate.MaxUnavailable = nil },
	"all on one node":       func(w *workload) { w.pod().TopologySpreadConstraints = nil },
}

func TestEveryBreachOfAPolicyIsSeen(t *testing.T) {
	for name, breach := range breaches {
		objects, err := render(overlays[1])
		if err != nil {
			t.Fatal(err)
		}
		found, err := workloads(objects)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range found {
			if w.component != "sse" {
				continue
			}
			breach(w)
			problems := 0
			for _, policy := range policies {
				problems += len(policy(w))
			}
			if problems == 0 {
				t.Errorf("%s was not detected", name)
			}
		}
	}
}
