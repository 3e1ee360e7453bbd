package packaging

import (
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// Users who take two of the modules get the greater of two versions of a third, which
// nobody here has tested with the smaller.
func TestSiblingVersionsAgree(t *testing.T) {
	all := modules(t)
	at := map[string][]string{}
	for _, m := range all {
		f, err := m.File()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range Siblings(f, all) {
			at[r.Mod.Version] = append(at[r.Mod.Version], m.Folder+" requires "+r.Mod.Path)
		}
	}
	if len(at) > 1 {
		t.Errorf("siblings are required at different versions: %q\nrun make pin VERSION=… with one of them", at)
	}
}

func TestPin(t *testing.T) {
	all := []Module{{Path: "example.com/a"}, {Path: "example.com/b"}}
	const text = `module example.com/b

go 1.23

require (
	example.com/a v0.0.0
	example.com/other v1.2.3
)

require example.com/indirect v1.0.0 // indirect

replace example.com/a => ../a
`
	f, err := modfile.Parse("go.mod", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Pin(f, all, "0.2.0"); err == nil {
		t.Error("0.2.0 was taken for a version")
	}
	if err := Pin(f, all, "v0.2.0"); err != nil {
		t.Fatal(err)
	}
	got, err := f.Format()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(text, "a v0.0.0", "a v0.2.0", 1); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// A command is installed, which its replace lines would forbid.
	f, err = modfile.Parse("go.mod", []byte(strings.Replace(text, "example.com/b", "example.com/cmd/b", 1)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Pin(f, all, "v0.2.0"); err != nil {
		t.Fatal(err)
	}
	if f.Cleanup(); len(f.Replace) > 0 {
		t.Errorf("a pinned command has the replace line %v", f.Replace[0].Syntax.Token)
	}
}
