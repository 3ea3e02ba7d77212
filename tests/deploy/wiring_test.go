package deploy

import (
	"fmt"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Secrets and claims that an operator has to make; deploy/README.md says how.
var madeByHand = map[string]bool{
	"runnel-api-keys": true, "runnel-tls": true, "runnel-internal-tls": true, "runnel-model": true, "runnel-log": true,
}

func forEachWiring(t *testing.T, check func(t *testing.T, objects []object, all []*workload)) {
	forEachOverlay(t, func(t *testing.T, objects []object) {
		all, err := workloads(objects)
		if err != nil {
			t.Fatal(err)
		}
		check(t, objects, all)
	})
}

func selected(selector map[string]string, all []*workload) (found []*workload) {
	for _, w := range all {
		if labels.SelectorFromSet(selector).Matches(labels.Set(w.podLabels())) {
			found = append(found, w)
		}
	}
	return found
}

func selectedBy(selector *metav1.LabelSelector, all []*workload) (found []*workload) {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil
	}
	for _, w := range all {
		if parsed.Matches(labels.Set(w.podLabels())) {
			found = append(found, w)
		}
	}
	return found
}

func TestPortsOfContainersAreThoseOfTheFlags(t *testing.T) {
	forEachWiring(t, func(t *testing.T, _ []object, all []*workload) {
		for _, w := range all {
			want := map[string]string{"admin": w.flagPort("admin_listen")}
			if w.component == "inference" {
				want["grpc"] = w.flagPort("listen")
			} else {
				want["http"] = w.flagPort("listen")
			}
			got := map[string]string{}
			for _, port := range w.container().Ports {
				got[port.Name] = fmt.Sprint(port.ContainerPort)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s has ports %v, the flags say %v", w.Name, got, want)
			}
		}
	})
}

func TestServicesLeadToPortsOfPods(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		for _, service := range ofType[*corev1.Service](objects) {
			pods := selected(service.Spec.Selector, append(stores(objects), all...))
			if len(pods) == 0 {
				t.Errorf("%s selects nothing", service.Name)
			}
			for _, w := range pods {
				for _, port := range service.Spec.Ports {
					if _, err := w.port(port.TargetPort); err != nil {
						t.Errorf("%s -> %s: %v", service.Name, w.Name, err)
					}
				}
			}
			if service.Spec.SessionAffinity != "" && service.Spec.SessionAffinity != corev1.ServiceAffinityNone {
				t.Errorf("%s has session affinity", service.Name)
			}
		}
	})
}

func TestBridgesReachEveryReplica(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		for _, w := range all {
			if w.component == "inference" {
				continue
			}
			host, port, _ := strings.Cut(strings.TrimPrefix(w.flags["inference"], "dns:///"), ":")
			service, ok := named[*corev1.Service](objects, host)
			if !ok || service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses {
				t.Errorf("%s: %s is not a headless Service that publishes draining replicas", w.Name, host)
				continue
			}
			// A headless Service does not translate ports.
			pods := selected(service.Spec.Selector, all)
			if len(pods) != 1 || pods[0].component != "inference" || pods[0].flagPort("listen") != port {
				t.Errorf("%s: %s does not lead to inference", w.Name, w.flags["inference"])
			}
		}
	})
}

func TestWhatPodsMountIsThere(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		for _, w := range all {
			if account, ok := named[*corev1.ServiceAccount](objects, w.pod().ServiceAccountName); !ok ||
				account.AutomountServiceAccountToken == nil || *account.AutomountServiceAccountToken {
				t.Errorf("%s: no service account %s without a token", w.Name, w.pod().ServiceAccountName)
			}
			for _, volume := range w.pod().Volumes {
				if volume.ConfigMap != nil {
					if _, ok := named[*corev1.ConfigMap](objects, volume.ConfigMap.Name); !ok {
						t.Errorf("%s mounts ConfigMap %s, which does not exist", w.Name, volume.ConfigMap.Name)
					}
				}
				if volume.Secret != nil && !madeByHand[volume.Secret.SecretName] {
					t.Errorf("%s mounts Secret %s, which is not documented", w.Name, volume.Secret.SecretName)
				}
				if claim := volume.PersistentVolumeClaim; claim != nil && (!madeByHand[claim.ClaimName] || !claim.ReadOnly) {
					t.Errorf("%s mounts claim %s, which is not documented or is writable", w.Name, claim.ClaimName)
				}
			}
			for _, flag := range []string{"api_keys_file", "model", "log_password_file", "log_ca_file"} {
				if file := w.flags[flag]; file != "" && w.flags["engine"] != "scripted" {
					if _, err := mountOf(w, file); err != nil {
						t.Errorf("%s: --%s: %v", w.Name, flag, err)
					}
				}
			}
		}
	})
}

func TestBudgetsAndAutoscalersFindTheirPods(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		budgeted := map[string]bool{}
		for _, budget := range ofType[*policyv1.PodDisruptionBudget](objects) {
			for _, w := range selectedBy(budget.Spec.Selector, all) {
				budgeted[w.Name] = true
			}
			if budget.Spec.MaxUnavailable == nil || budget.Spec.MaxUnavailable.IntValue() < 1 {
				t.Errorf("%s prevents nodes from being drained", budget.Name)
			}
		}
		scaled := map[string]string{}
		for _, scaler := range ofType[*autoscalingv2.HorizontalPodAutoscaler](objects) {
			scaled[scaler.Spec.ScaleTargetRef.Name] = scaler.Name
		}
		for _, w := range all {
			if !budgeted[w.Name] {
				t.Errorf("%s has no disruption budget", w.Name)
			}
			if _, ok := scaled[w.Name]; ok == (w.Spec.Replicas != nil) {
				t.Errorf("%s: the number of replicas must be set by either the autoscaler or the manifest", w.Name)
			}
			delete(scaled, w.Name)
		}
		for target, scaler := range scaled {
			t.Errorf("%s scales %s, which does not exist", scaler, target)
		}
	})
}

// backends returns service:port of all backends of routes and ingresses.
func backends(objects []object) (found []string) {
	add := func(ref gatewayv1.BackendObjectReference) {
		if ref.Port != nil {
			found = append(found, fmt.Sprintf("%s:%d", ref.Name, *ref.Port))
		}
	}
	for _, route := range ofType[*gatewayv1.HTTPRoute](objects) {
		for _, rule := range route.Spec.Rules {
			for _, ref := range rule.BackendRefs {
				add(ref.BackendObjectReference)
			}
		}
	}
	for _, route := range ofType[*gatewayv1.GRPCRoute](objects) {
		for _, rule := range route.Spec.Rules {
			for _, ref := range rule.BackendRefs {
				add(ref.BackendObjectReference)
			}
		}
	}
	for _, ingress := range ofType[*networkingv1.Ingress](objects) {
		for _, rule := range ingress.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				found = append(found, path.Backend.Service.Name+":"+path.Backend.Service.Port.Name)
			}
		}
	}
	return found
}

func TestRoutesLeadToServices(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, _ []*workload) {
		known := map[string]bool{}
		for _, service := range ofType[*corev1.Service](objects) {
			for _, port := range service.Spec.Ports {
				known[fmt.Sprintf("%s:%d", service.Name, port.Port)] = true
				known[service.Name+":"+port.Name] = true
			}
		}
		for _, backend := range backends(objects) {
			if !known[backend] {
				t.Errorf("a route leads to %s, which does not exist", backend)
			}
		}
	})
}
