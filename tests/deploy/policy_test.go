package deploy

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// The rules for our pods. Each function returns what is wrong.
var policies = []func(*workload) []string{
	isRestricted, runsAsNobody, writesNowhere, hasNoToken, hasResources, hasPinnedImages, hasProbes, ends, rollsWithoutGap,
}

// The evaluation of the Pod Security Standard `restricted` by Kubernetes' code.
func isRestricted(w *workload) (problems []string) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return []string{err.Error()}
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &w.Spec.Template.ObjectMeta, w.pod()))
	if !result.Allowed {
		problems = append(problems, result.ForbiddenDetail())
	}
	return problems
}

func runsAsNobody(w *workload) (problems []string) {
	context := w.pod().SecurityContext
	if context == nil || context.RunAsUser == nil || *context.RunAsUser != 65532 {
		problems = append(problems, "does not run as 65532")
	}
	for _, container := range w.containers() {
		if own := container.SecurityContext; own != nil && (own.RunAsUser != nil || own.RunAsNonRoot != nil) {
			problems = append(problems, container.Name+" sets another user")
		}
	}
	return problems
}

func writesNowhere(w *workload) (problems []string) {
	for _, container := range w.containers() {
		context := container.SecurityContext
		if context == nil || context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
			problems = append(problems, container.Name+": the root file system is writable")
		}
	}
	for _, mount := range w.container().VolumeMounts {
		if !mount.ReadOnly && mount.MountPath != "/tmp" {
			problems = append(problems, mount.MountPath+" is writable")
		}
	}
	for _, volume := range w.pod().Volumes {
		// A volume on disk counts towards the pod's ephemeral storage, whose limit hasResources checks.
		onDisk := volume.EmptyDir != nil && volume.EmptyDir.Medium == corev1.StorageMediumDefault
		if volume.EmptyDir != nil && volume.EmptyDir.SizeLimit == nil && !onDisk {
			problems = append(problems, "volume "+volume.Name+" has no limit")
		}
	}
	return problems
}

func hasNoToken(w *workload) (problems []string) {
	if auto := w.pod().AutomountServiceAccountToken; auto == nil || *auto {
		problems = append(problems, "a token of the service account is mounted")
	}
	if w.pod().ServiceAccountName == "" || w.pod().ServiceAccountName == "default" {
		problems = append(problems, "uses the default service account")
	}
	return problems
}

func hasResources(w *workload) (problems []string) {
	for _, container := range w.containers() {
		for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			limit, ok := container.Resources.Limits[name]
			if request := container.Resources.Requests[name]; !ok || request.IsZero() || request.Cmp(limit) > 0 {
				problems = append(problems, fmt.Sprintf("%s: request and limit of %s", container.Name, name))
			}
		}
		if _, ok := container.Resources.Requests[corev1.ResourceCPU]; !ok {
			problems = append(problems, container.Name+": no request of cpu")
		}
		// CPU throttling would stall every stream.
		if _, ok := container.Resources.Limits[corev1.ResourceCPU]; ok {
			problems = append(problems, container.Name+": a limit of cpu")
		}
	}
	return problems
}

var pinnedImage = regexp.MustCompile(`(:v?[0-9]+\.[0-9]+\.[0-9]+|@sha256:[0-9a-f]{64})$`)

func hasPinnedImages(w *workload) (problems []string) {
	for _, container := range w.containers() {
		if !pinnedImage.MatchString(container.Image) {
			problems = append(problems, container.Image+" has no fixed version")
		}
		if container.ImagePullPolicy == corev1.PullAlways {
			problems = append(problems, container.Name+" is pulled at each start")
		}
	}
	return problems
}

func hasProbes(w *workload) (problems []string) {
	container := w.container()
	for name, probe := range map[string]*corev1.Probe{
		"startup": container.StartupProbe, "readiness": container.ReadinessProbe, "liveness": container.LivenessProbe,
	} {
		if probe == nil {
			problems = append(problems, "no "+name+" probe")
			continue
		}
		if name == "liveness" && (probe.HTTPGet == nil || probe.HTTPGet.Path != "/livez") {
			problems = append(problems, "liveness depends on more than the process")
		}
		port := w.flagPort("admin_listen")
		target := intstr.IntOrString{}
		if probe.HTTPGet != nil {
			target = probe.HTTPGet.Port
		} else if probe.GRPC != nil {
			port, target = w.flagPort("listen"), intstr.FromInt32(probe.GRPC.Port)
		}
		if resolved, err := w.port(target); err != nil || fmt.Sprint(resolved) != port {
			problems = append(problems, fmt.Sprintf("%s probe uses port %s, the process listens on %s", name, target.String(), port))
		}
	}
	return problems
}

// The time that the process needs to end after its two waits.
const timeToEnd = 5 * time.Second

// The pod must be out of the Services before SIGTERM, and SIGKILL must come only after the process could end by itself.
func ends(w *workload) (problems []string) {
	preStop := time.Duration(0)
	if hooks := w.container().Lifecycle; hooks != nil && hooks.PreStop != nil && hooks.PreStop.Sleep != nil {
		preStop = time.Duration(hooks.PreStop.Sleep.Seconds) * time.Second
	}
	if preStop < 5*time.Second {
		problems = append(problems, "preStop does not sleep 5 s or more")
	}
	notice, err := w.duration("drain_notice")
	if err != nil {
		problems = append(problems, err.Error())
	}
	drain, err := w.duration("drain_timeout")
	if err != nil {
		problems = append(problems, err.Error())
	}
	grace := time.Duration(0)
	if seconds := w.pod().TerminationGracePeriodSeconds; seconds != nil {
		grace = time.Duration(*seconds) * time.Second
	}
	if need := preStop + notice + drain + timeToEnd; grace < need {
		problems = append(problems, fmt.Sprintf("grace period %v, needs %v", grace, need))
	}
	return problems
}

func rollsWithoutGap(w *workload) (problems []string) {
	rolling := w.Spec.Strategy.RollingUpdate
	if rolling == nil || rolling.MaxUnavailable == nil || rolling.MaxUnavailable.IntValue() != 0 {
		problems = append(problems, "a pod may end before its successor is ready")
	}
	if len(w.pod().TopologySpreadConstraints) < 2 {
		problems = append(problems, "is not spread over nodes and zones")
	}
	return problems
}

func TestEveryPodKeepsThePolicies(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, objects []object) {
		found, err := workloads(objects)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range found {
			for _, policy := range policies {
				report(t, w.Name, policy(w))
			}
		}
	})
}
