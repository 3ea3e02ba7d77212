package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// The validation of an API server with a CustomResourceDefinition for objects of its kind.
type customKind struct {
	validator validation.SchemaValidator
	schema    *structural.Structural
}

// gatewayKinds returns the kinds of Gateway API's standard channel by apiVersion and kind, from its definitions.
func gatewayKinds() (map[string]customKind, error) {
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), "config/crd/standard/*_*.yaml"))
	if err != nil {
		return nil, err
	}
	kinds := map[string]customKind{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &definition); err != nil || definition.Kind != "CustomResourceDefinition" {
			continue // the folder also has admission policies
		}
		if err := addVersions(kinds, &definition); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return kinds, nil
}

func addVersions(kinds map[string]customKind, definition *apiextensionsv1.CustomResourceDefinition) error {
	for _, version := range definition.Spec.Versions {
		var schema apiextensions.JSONSchemaProps
		written := version.Schema.OpenAPIV3Schema
		err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(written, &schema, nil)
		if err != nil {
			return err
		}
		validator, _, err := validation.NewSchemaValidator(&schema)
		if err != nil {
			return err
		}
		shape, err := structural.NewStructural(&schema)
		if err != nil {
			return err
		}
		kinds[definition.Spec.Group+"/"+version.Name+" "+definition.Spec.Names.Kind] = customKind{validator, shape}
	}
	return nil
}

// problems returns what a definition does not allow in an object, including unknown fields.
func (k customKind) problems(content []byte) (problems []string) {
	var object map[string]any
	if err := yaml.UnmarshalStrict(content, &object); err != nil {
		return []string{err.Error()}
	}
	for _, err := range validation.ValidateCustomResource(nil, object, k.validator) {
		problems = append(problems, err.Error())
	}
	options := structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	for _, path := range pruning.PruneWithOptions(runtime.DeepCopyJSON(object), k.schema, true, options) {
		problems = append(problems, "unknown field "+path)
	}
	return problems
}

func TestRoutesAreWhatGatewayApiDefines(t *testing.T) {
	kinds, err := gatewayKinds()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	forEachOverlay(t, func(t *testing.T, objects []object) {
		for _, each := range objects {
			kind := each.typed.GetObjectKind().GroupVersionKind()
			if kind.Group != "gateway.networking.k8s.io" {
				continue
			}
			definition, ok := kinds[kind.GroupVersion().String()+" "+kind.Kind]
			if !ok {
				t.Errorf("%s: %s is not in the standard channel", each.id, kind)
				continue
			}
			seen++
			report(t, each.id, definition.problems(each.yaml))
			for name, change := range map[string][2]string{
				"unknown field": {"spec:\n", "spec:\n  nonsense: 1\n"},
				"no spec":       {"spec:\n", "spek:\n"},
			} {
				bad := strings.Replace(string(each.yaml), change[0], change[1], 1)
				if len(definition.problems([]byte(bad))) == 0 {
					t.Errorf("%s: %s was not detected", each.id, name)
				}
			}
		}
	})
	if seen < 5 {
		t.Errorf("only %d objects of Gateway API were checked", seen)
	}
}
