package deploy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
)

// The API server's validation of an object after setting its defaults, by Kubernetes' code.
func validateBuiltIn(internal runtime.Object) (field.ErrorList, error) {
	switch typed := internal.(type) {
	case *apps.Deployment:
		options := pod.GetValidationOptionsFromPodTemplate(&typed.Spec.Template, nil)
		return appsvalidation.ValidateDeployment(typed, options), nil
	case *apps.StatefulSet:
		options := pod.GetValidationOptionsFromPodTemplate(&typed.Spec.Template, nil)
		return appsvalidation.ValidateStatefulSet(typed, appsvalidation.StatefulSetValidationOptions{}, options), nil
	case *core.Service:
		// Like the API server before its validation.
		if typed.Spec.ClusterIP != "" {
			typed.Spec.ClusterIPs = []string{typed.Spec.ClusterIP}
		}
		return corevalidation.ValidateServiceCreate(typed), nil
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(typed), nil
	case *core.Namespace:
		return corevalidation.ValidateNamespace(typed), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(typed), nil
	case *networking.NetworkPolicy:
		options := networkingvalidation.NetworkPolicyValidationOptions{}
		return networkingvalidation.ValidateNetworkPolicy(typed, options), nil
	case *networking.Ingress:
		return networkingvalidation.ValidateIngressCreate(typed), nil
	case *policy.PodDisruptionBudget:
		options := policyvalidation.PodDisruptionBudgetValidationOptions{}
		return policyvalidation.ValidatePodDisruptionBudget(typed, options), nil
	case *autoscaling.HorizontalPodAutoscaler:
		return autoscalingvalidation.ValidateHorizontalPodAutoscaler(typed,
			autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{MinReplicasLowerBound: 1}), nil
	}
	return nil, fmt.Errorf("no validation for %T", internal)
}

func isCustom(each object) bool {
	group := each.typed.GetObjectKind().GroupVersionKind().Group
	return group == "gateway.networking.k8s.io" || group == "monitoring.coreos.com"
}

func validate(each object) []string {
	internal, err := runtime.Decode(legacyscheme.Codecs.UniversalDecoder(), each.yaml)
	if err != nil {
		return []string{err.Error()}
	}
	errors, err := validateBuiltIn(internal)
	if err != nil {
		return []string{err.Error()}
	}
	// The checks that are generated from the types. None of the feature gates that they query is on by default.
	gates := map[string]bool{"HPAScaleToZero": false}
	errors = append(errors, legacyscheme.Scheme.Validate(context.Background(), gates, each.typed)...)
	var problems []string
	for _, each := range errors {
		problems = append(problems, each.Error())
	}
	return problems
}

func TestEveryOverlayPassesWhatTheApiServerChecks(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, objects []object) {
		for _, each := range objects {
			if !isCustom(each) {
				report(t, each.id, validate(each))
			}
		}
	})
}

func TestEveryObjectIsOnceAndInTheNamespace(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, objects []object) {
		seen := map[string]bool{}
		for _, each := range objects {
			if seen[each.id] {
				t.Errorf("%s occurs twice", each.id)
			}
			seen[each.id] = true
			if each.id != "Namespace/runnel" && !strings.Contains(string(each.yaml), "\n  namespace: runnel\n") {
				t.Errorf("%s is not in the namespace runnel", each.id)
			}
		}
	})
}

const goodService = `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: b}
spec:
  selector: {c: d}
  ports: [{name: e, port: 80}]
`

// Shows that the checks can fail.
func TestBadObjectsAreRefused(t *testing.T) {
	forEachMistake(t, goodService, map[string][2]string{
		"unknown field":        {"selector: {c: d}", "selektor: {c: d}"},
		"unknown nested field": {"{name: e, port: 80}", "{name: e, port: 80, protocoll: TCP}"},
		"field given twice":    {"  selector", "  ports: []\n  selector"},
		"wrong case":           {"selector:", "Selector:"},
		"wrong type":           {"port: 80", "port: [80]"},
		"port out of range":    {"port: 80", "port: 80000"},
		"bad name":             {"name: e", "name: e_e"},
		"bad enum":             {"port: 80", "port: 80, protocol: HTTP"},
		"missing port":         {", port: 80", ""},
		"unknown kind":         {"kind: Service", "kind: Servise"},
		"old version":          {"apiVersion: v1", "apiVersion: v1beta1"},
	}, func(changed []byte) bool {
		decoded, err := decode(changed)
		return err != nil || len(validate(decoded)) > 0
	})
	good, err := decode([]byte(goodService))
	if err != nil {
		t.Fatal(err)
	}
	report(t, "the good one", validate(good))
}
