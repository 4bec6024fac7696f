package schema_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/schema"
)

var update = flag.Bool("update", false, "write the goldens")

func TestOf(t *testing.T) {
	for _, document := range schema.Documents() {
		t.Run(document, func(t *testing.T) {
			got, err := schema.Of(document)
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + document + ".json"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error(cmp.Diff(string(want), string(got)))
			}
		})
	}
	if _, err := schema.Of("image"); err == nil {
		t.Error("Of(image) has no error")
	}
}
