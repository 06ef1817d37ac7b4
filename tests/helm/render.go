// render stands in for helm where that isn't installed: it renders one chart without subcharts, as far as ours needs.
//
//	render template NAME CHART [--namespace NS] [--values FILE]...   manifests, as `helm template`
//	render notes    NAME CHART ...                                     what NOTES.txt says
//
// It is stricter than helm: a value that isn't there is an error, and so is a key that stands twice in a manifest. What
// doesn't fit values.schema.json is refused as helm does. Built from Debian's packages: tests/helm/charts.py.
package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/xeipuuv/gojsonschema"
	"sigs.k8s.io/yaml"
)

type object = map[string]interface{}

// chartFiles are the files of a chart that are neither templates nor its own, by path: `.Files`.
type chartFiles map[string]string

func (files chartFiles) Get(name string) string { return files[name] }

func (files chartFiles) Glob(pattern string) (chartFiles, error) {
	matching := chartFiles{}
	for name, content := range files {
		matches, err := path.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if matches {
			matching[name] = content
		}
	}
	return matching, nil
}

type chart struct {
	meta      object
	values    object
	schema    []byte
	templates map[string]string // by name as helm calls them: postkeeper/templates/service.yaml
	files     chartFiles
}

func readChart(folder string) (*chart, error) {
	read := &chart{meta: object{}, values: object{}, templates: map[string]string{}, files: chartFiles{}}
	err := filepath.WalkDir(folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, file)
		switch {
		case err != nil:
		case name == "Chart.yaml":
			err = yaml.UnmarshalStrict(content, &read.meta)
		case name == "values.yaml":
			err = yaml.UnmarshalStrict(content, &read.values)
		case name == "values.schema.json":
			read.schema = content
		case strings.HasPrefix(name, "templates/"):
			read.templates[name] = string(content)
		default:
			read.files[name] = string(content)
		}
		return err
	})
	return read, err
}

// override lays what a user says over the defaults: maps are merged, all else is replaced, null removes.
func override(values, user object) {
	for key, value := range user {
		below, isMap := value.(object)
		under, wasMap := values[key].(object)
		switch {
		case value == nil:
			delete(values, key)
		case isMap && wasMap:
			override(under, below)
		default:
			values[key] = value
		}
	}
}

func (c *chart) checkValues() error {
	result, err := gojsonschema.Validate(gojsonschema.NewBytesLoader(c.schema), gojsonschema.NewGoLoader(c.values))
	if err != nil || result.Valid() {
		return err
	}
	var complaints []string
	for _, complaint := range result.Errors() {
		complaints = append(complaints, "- "+complaint.String())
	}
	sort.Strings(complaints)
	return fmt.Errorf("values don't meet the specifications of the schema(s):\n%s", strings.Join(complaints, "\n"))
}

func toYaml(value interface{}) (string, error) {
	text, err := yaml.Marshal(value)
	return strings.TrimSuffix(string(text), "\n"), err
}

func fromYaml(text string) (object, error) {
	value := object{}
	err := yaml.UnmarshalStrict([]byte(text), &value)
	return value, err
}

func (c *chart) name() string { return fmt.Sprint(c.meta["name"]) }

// parse reads all templates; what they call by name may stand in any of them.
func (c *chart) parse() (*template.Template, error) {
	all := template.New(c.name()).Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["toYaml"] = toYaml
	functions["fromYaml"] = fromYaml
	functions["include"] = func(name string, data interface{}) (string, error) {
		var text bytes.Buffer
		err := all.ExecuteTemplate(&text, name, data)
		return text.String(), err
	}
	all.Funcs(functions)
	for name, text := range c.templates {
		if _, err := all.New(c.name() + "/" + name).Parse(text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// root is what stands behind the dot.
func (c *chart) root(release, namespace, templateName string) object {
	meta := object{}
	for key, value := range c.meta { // Chart.yaml's appVersion is .Chart.AppVersion
		meta[strings.ToUpper(key[:1])+key[1:]] = value
	}
	return object{
		"Values": c.values, "Chart": meta, "Files": c.files,
		"Release":  object{"Name": release, "Namespace": namespace, "Service": "Helm", "Revision": 1},
		"Template": object{"Name": templateName, "BasePath": c.name() + "/templates"},
	}
}

func (c *chart) render(release, namespace, wanted string) (string, error) {
	all, err := c.parse()
	if err != nil {
		return "", err
	}
	var names []string
	for name := range c.templates {
		isNotes := path.Base(name) == "NOTES.txt"
		if !strings.HasPrefix(path.Base(name), "_") && isNotes == (wanted == "notes") {
			names = append(names, c.name()+"/"+name)
		}
	}
	sort.Strings(names)
	var out strings.Builder
	for _, name := range names {
		var text bytes.Buffer
		if err := all.ExecuteTemplate(&text, name, c.root(release, namespace, name)); err != nil {
			return "", err
		}
		if wanted == "notes" {
			out.Write(text.Bytes())
		} else if err := writeManifests(&out, name, text.String()); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

var betweenDocuments = regexp.MustCompile(`(?m)^---\s*$`)

func writeManifests(out *strings.Builder, name, text string) error {
	for _, document := range betweenDocuments.Split(text, -1) {
		manifest := object{}
		if err := yaml.UnmarshalStrict([]byte(document), &manifest); err != nil {
			return fmt.Errorf("%s is no YAML: %v", name, err)
		}
		if len(manifest) > 0 {
			fmt.Fprintf(out, "---\n# Source: %s\n%s\n", name, strings.Trim(document, "\n"))
		}
	}
	return nil
}

func run(arguments []string) (string, error) {
	if len(arguments) < 3 || len(arguments)%2 == 0 {
		return "", fmt.Errorf("usage: render template|notes NAME CHART [--namespace NS] [--values FILE]...")
	}
	wanted, release, namespace := arguments[0], arguments[1], "default"
	c, err := readChart(arguments[2])
	if err != nil {
		return "", err
	}
	for i := 3; i < len(arguments); i += 2 {
		switch value := arguments[i+1]; arguments[i] {
		case "--namespace":
			namespace = value
		case "--values":
			content, err := os.ReadFile(value)
			if err != nil {
				return "", err
			}
			user, err := fromYaml(string(content))
			if err != nil {
				return "", err
			}
			override(c.values, user)
		default:
			return "", fmt.Errorf("no flag %s", arguments[i])
		}
	}
	if err := c.checkValues(); err != nil {
		return "", err
	}
	return c.render(release, namespace, wanted)
}

func main() {
	text, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}
