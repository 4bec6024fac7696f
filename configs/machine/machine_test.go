package machine_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"slipway/configs/machine"
	"slipway/configs/secret"
)

var update = flag.Bool("update", false, "write the goldens")

func example(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestExamples(t *testing.T) {
	for _, file := range []string{"machine-control-plane.yaml", "machine-worker.yaml"} {
		t.Run(file, func(t *testing.T) {
			c, err := machine.Parse(example(t, file), file)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Validate(); err != nil {
				t.Error(err)
			}
			roundTrip(t, c)
		})
	}
}

func roundTrip(t *testing.T, c *machine.Config) {
	t.Helper()
	data, err := machine.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := machine.Parse(data, "again")
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if diff := cmp.Diff(c, again, comparers); diff != "" {
		t.Errorf("marshalled and parsed again (-want +got):\n%s", diff)
	}
}

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b secret.String) bool { return a == b }),
}

func TestSecretsStayHidden(t *testing.T) {
	c, err := machine.Parse(example(t, "machine-control-plane.yaml"), "c")
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v", *c, c.ControlPlaneKeys, c.Etcd)
	for _, s := range []string{"PRIVATE", c.Cluster.BootstrapToken.Reveal(), c.ControlPlaneKeys.EncryptionKeys[0].Secret.Reveal(), c.Etcd.Bootstrap.Token.Reveal()} {
		if strings.Contains(printed, s) {
			t.Errorf("printing a config shows %q", s)
		}
	}
}

// TestErrors reads each case of testdata/errors. Its comment names an example
// and edits to it, `old => new` a line (\n is a line break); its file is what
// is said of the result.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { checkErrors(t, file) })
	}
}

func checkErrors(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = machine.Parse(edited(t, string(a.Comment)), "machine.yaml")
	if err == nil {
		t.Fatal("no error")
	}
	got := []byte(err.Error() + "\n")
	if *update {
		a.Files = []txtar.File{{Name: "errors", Data: got}}
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, a.Files[0].Data) {
		t.Error(cmp.Diff(string(a.Files[0].Data), string(got)))
	}
}

func edited(t *testing.T, comment string) []byte {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(comment), "\n")
	text := string(example(t, strings.TrimSpace(lines[0])))
	for _, line := range lines[1:] {
		old, new, _ := strings.Cut(strings.ReplaceAll(line, `\n`, "\n"), " =>")
		new = strings.TrimPrefix(new, " ")
		if !strings.Contains(text, old) {
			t.Fatalf("the example has no %q", old)
		}
		text = strings.Replace(text, old, new, 1)
	}
	return []byte(text)
}

func FuzzMachineParse(f *testing.F) {
	f.Add(example(f, "machine-control-plane.yaml"))
	f.Add(example(f, "machine-worker.yaml"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := machine.Parse(data, "fuzz.yaml")
		if (c == nil) == (err == nil) {
			t.Fatalf("Parse returned %v and %v", c, err)
		}
		if err == nil {
			roundTrip(t, c)
		}
	})
}
