package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	withRedis         = "with_redis"
	withRedisExternal = "with_redis_external"
	redisFolder       = deployDir + "/kubernetes/components/redis/"
)

// stores returns the servers of a shared log, which have no flags of ours.
func stores(objects []object) (found []*workload) {
	for _, set := range ofType[*appsv1.StatefulSet](objects) {
		made := &appsv1.Deployment{ObjectMeta: set.ObjectMeta}
		made.Spec.Template = set.Spec.Template
		found = append(found, &workload{Deployment: made, component: set.Spec.Template.Labels["app.kubernetes.io/component"]})
	}
	return found
}

func rendered(t *testing.T, dir string) []object {
	t.Helper()
	objects, err := render(dir)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestOnlyTheComponentsShareTheLog(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		for _, w := range all {
			for flag := range w.flags {
				shares := flag == "log" || strings.HasPrefix(flag, "log_") && flag != "log_level"
				if shares && (w.component != "inference" || !strings.Contains(t.Name(), withRedis)) {
					t.Errorf("%s has --%s", w.Name, flag)
				}
			}
		}
	})
}

func TestReplicasReachTheirStoreAndEachOther(t *testing.T) {
	objects := rendered(t, withRedis)
	service, ok := named[*corev1.Service](objects, "runnel-redis")
	if !ok {
		t.Fatal("the store has no Service")
	}
	address := fmt.Sprintf("redis://%s:%d", service.Name, service.Spec.Ports[0].Port)
	for dir, want := range map[string]map[string]string{
		withRedis:         {"log": address, "log_user": "runnel", "log_ca_file": ""},
		withRedisExternal: {"log": "rediss://redis.example.com:6379", "log_user": "runnel", "log_ca_file": "/etc/runnel-log/ca.crt"},
	} {
		w := inferenceOf(t, rendered(t, dir))
		for flag, value := range want {
			if w.flags[flag] != value {
				t.Errorf("%s: --%s is %q, want %q", dir, flag, w.flags[flag], value)
			}
		}
		if w.flags["log_password_file"] == "" || w.flags["log_address"] != "$(POD_IP):"+w.flagPort("listen") {
			t.Errorf("%s: flags %v", dir, w.flags)
		}
		if !slices.ContainsFunc(w.container().Env, func(each corev1.EnvVar) bool {
			return each.Name == "POD_IP" && each.ValueFrom.FieldRef.FieldPath == "status.podIP"
		}) {
			t.Errorf("%s: POD_IP is not the address of the pod", dir)
		}
	}
}

// An overlay can change every flag of the components, because overlay.flags comes last.
func TestOverlaysHaveTheLastWordOnTheSharedLog(t *testing.T) {
	for _, dir := range []string{withRedis, withRedisExternal} {
		args := inferenceOf(t, rendered(t, dir)).container().Args
		last := slices.IndexFunc(args, func(arg string) bool { return strings.HasSuffix(arg, ",/etc/runnel/overlay.flags") })
		for i, arg := range args {
			if strings.HasPrefix(arg, "--log") && i > last {
				t.Errorf("%s: %s is after the overlay's flags", dir, arg)
			}
		}
	}
}

// A handed over generation continues elsewhere, so nobody waits for its end.
func TestASharedLogShortensTheDrain(t *testing.T) {
	alone, err := inferenceOf(t, rendered(t, overlays[1])).duration("drain_timeout")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{withRedis, withRedisExternal} {
		w := inferenceOf(t, rendered(t, dir))
		if drain, err := w.duration("drain_timeout"); err != nil || drain*5 > alone {
			t.Errorf("%s: a drain takes %v, without a shared log %v: %v", dir, drain, alone, err)
		}
		if w.flags["drain_handover"] == "false" {
			t.Errorf("%s: no hand-over", dir)
		}
	}
}

func TestTheStoreIsConfinedLikeThePods(t *testing.T) {
	objects := rendered(t, withRedis)
	found := stores(objects)
	if len(found) != 1 {
		t.Fatalf("%d stores", len(found))
	}
	w := found[0]
	for _, policy := range []func(*workload) []string{isRestricted, runsAsNobody, hasNoToken, hasResources, hasPinnedImages} {
		report(t, w.Name, policy(w))
	}
	container := w.container()
	if context := container.SecurityContext; context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
		t.Error("the root file system is writable")
	}
	for _, mount := range container.VolumeMounts {
		if !mount.ReadOnly && mount.MountPath != "/tmp" && mount.MountPath != "/data" {
			t.Errorf("%s is writable", mount.MountPath)
		}
	}
	for _, probe := range []*corev1.Probe{container.StartupProbe, container.ReadinessProbe, container.LivenessProbe} {
		// An open port proves nothing.
		if probe == nil || probe.Exec == nil || !slices.Contains(probe.Exec.Command, "ping") {
			t.Errorf("probe %v", probe)
		}
	}
	for _, volume := range w.pod().Volumes {
		if secret := volume.Secret; secret != nil {
			if len(secret.Items) == 0 {
				t.Errorf("the store sees all of Secret %s, also the keys that encrypt its content", secret.SecretName)
			}
			for _, item := range secret.Items {
				if item.Key != item.Path || item.Key != "password" && item.Key != "next-password" {
					t.Errorf("the store sees %s of Secret %s", item.Key, secret.SecretName)
				}
			}
		}
		if config := volume.ConfigMap; config != nil {
			if _, ok := named[*corev1.ConfigMap](objects, config.Name); !ok {
				t.Errorf("no ConfigMap %s", config.Name)
			}
		}
	}
	if _, ok := named[*corev1.ServiceAccount](objects, w.pod().ServiceAccountName); !ok {
		t.Error("no service account")
	}
}

// redisSetting returns the value of a directive of redis.conf.
func redisSetting(t *testing.T, name string) string {
	t.Helper()
	for _, line := range strings.Split(string(readFile(t, redisFolder+"redis.conf")), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return value
		}
	}
	t.Fatalf("redis.conf has no %s", name)
	return ""
}

func TestTheStoreHasRoomForItsRewrites(t *testing.T) {
	objects := rendered(t, withRedis)
	data := resource.MustParse(strings.Replace(redisSetting(t, "maxmemory"), "mb", "Mi", 1))
	limit := stores(objects)[0].container().Resources.Limits.Memory()
	if room := limit.Value() - 2*data.Value(); room < 256<<20 {
		t.Errorf("a limit of %s leaves %d bytes beside %s and its copies", limit, room, &data)
	}
	set := ofType[*appsv1.StatefulSet](objects)[0]
	disk := set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage()
	if disk.Value() < 4*data.Value() {
		t.Errorf("%s on disk for %s", disk, &data)
	}
	// The server writes its file to its working directory.
	container := set.Spec.Template.Spec.Containers[0]
	if !slices.ContainsFunc(container.VolumeMounts, func(each corev1.VolumeMount) bool {
		return each.Name == set.Spec.VolumeClaimTemplates[0].Name && each.MountPath == container.WorkingDir
	}) {
		t.Error("the file is not on the volume")
	}
}

// withExternal renders production with the component added as documented, for another server.
func withExternal(t *testing.T, address, network string) []object {
	t.Helper()
	component, generator := documentedLines(t, "redis-external")
	for _, change := range [][2]string{{"rediss://redis.example.com:6379", address}, {"192.0.2.0/24", network}} {
		if strings.Count(generator, change[0]) != 1 {
			t.Fatalf("%q does not occur exactly once in:\n%s", change[0], generator)
		}
		generator = strings.Replace(generator, change[0], change[1], 1)
	}
	objects, err := renderChanged(productionFile,
		"components:\n", "components:\n"+component, "configMapGenerator:\n", "configMapGenerator:\n"+generator)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestAnExternalStoreIsTheOneOfTheOverlay(t *testing.T) {
	names := map[string]bool{}
	for _, row := range [][2]string{
		{"rediss://redis.example.com:6379", "192.0.2.0/24"},
		{"rediss+sentinel://a.example.com:26379,b.example.com:26379/main", "198.51.100.7/32"},
	} {
		objects := withExternal(t, row[0], row[1])
		w := inferenceOf(t, objects)
		if w.flags["log"] != row[0] {
			t.Errorf("the store is %s, want %s", w.flags["log"], row[0])
		}
		policy, ok := named[*networkingv1.NetworkPolicy](objects, "inference-to-log")
		if !ok || len(policy.Spec.Egress) != 1 || len(policy.Spec.Egress[0].To) != 1 ||
			policy.Spec.Egress[0].To[0].IPBlock.CIDR != row[1] || len(policy.Spec.Egress[0].Ports) != 2 {
			t.Errorf("replicas may reach %v, want %s", policy.Spec.Egress, row[1])
		}
		// Another address has another name, so that it rolls the pods.
		for _, variable := range w.container().Env {
			if variable.Name == "LOG_ADDRESS" {
				names[variable.ValueFrom.ConfigMapKeyRef.Name] = true
			}
		}
	}
	if len(names) != 2 {
		t.Errorf("two addresses are in the ConfigMaps %v", names)
	}
}
