package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"slipway/bootsvc/api/client"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// TestMain makes the program itself a command of the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"slipway": main})
}

// TestScript runs what a person would type; the scripts are there to be read.
func TestScript(t *testing.T) {
	rack, outdated := scriptRacks(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			return errors.Join(writeContext(env), os.WriteFile(env.WorkDir+"/rack.yaml", rack, 0o600), os.WriteFile(env.WorkDir+"/outdated.yaml", outdated, 0o600))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a program that must end with an exit code: exits 2 slipway nosuch.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case err == nil && want != 0:
		ts.Fatalf("exit code 0, want %d", want)
	case errors.As(err, &exit) && exit.ExitCode() != want:
		ts.Fatalf("exit code %d, want %d", exit.ExitCode(), want)
	case err != nil && exit == nil:
		ts.Fatalf("%v", err)
	}
}

// writeContext gives each script a valid context whose server is not there.
func writeContext(env *testscript.Env) error {
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	if err != nil {
		return err
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "ann", Client: true, Validity: time.Hour}, time.Now())
	if err != nil {
		return err
	}
	text, err := client.Context{
		Servers: []string{"https://127.0.0.1:1"}, CA: string(ca.CertPEM),
		Certificate: string(leaf.CertPEM), Key: secret.New(string(leaf.KeyPEM)),
	}.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(env.WorkDir+"/context.yaml", text, 0o600)
}
