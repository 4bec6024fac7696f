package agent

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/sysdisk"
)

// foundOn is an installation of n that was made of a boot service's config.
func foundOn(t *testing.T, n *node, ca *testCA) *sysdisk.Found {
	t.Helper()
	key := newKey(t)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &sysdisk.Found{
		State: sysdisk.State{Path: "/dev/vda"},
		Files: map[string][]byte{
			keyFile: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), caFile: toPEM(ca.cert.Raw), configFile: onDisk(t, ""),
			certFile: toPEM(ca.sign(t, &key.PublicKey, n.args.Machine, "slipway:machine")),
		},
	}
}

// enrolledWith says whether a machine showed the key of an installation.
func enrolledWith(t *testing.T, r *bootv1.EnrollRequest, found *sysdisk.Found) bool {
	t.Helper()
	request, err := x509.ParseCertificateRequest(r.Csr)
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(found.Files[keyFile])
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey.Equal(request.PublicKey)
}

// mayNotInstall is a disk that nobody may write.
func mayNotInstall(t *testing.T, n *node, found *sysdisk.Found) *fakeDisk {
	d := newFakeDisk()
	d.found = found
	d.install = func(*machine.Config, map[string][]byte) error {
		t.Error("it installs itself once more")
		return errors.New("it may not")
	}
	n.disk = d
	return d
}

// TestFound: a machine that was sent the installer though it is installed stays
// who it is, says where it lives, and restarts from there.
func TestFound(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, onDisk(t, "")
	n := newNode(t, b)
	found := foundOn(t, n, b.ca)
	mayNotInstall(t, n, found)
	n.start(t)
	<-n.pid1.reboots
	b.await("word of the installation", func() bool { return slices.Contains(b.events, "found") && b.disk.GetPath() == "/dev/vda" })
	if wipe := <-n.pid1.wipes; wipe != "" {
		t.Errorf("it wipes its disk: %s", wipe)
	}
	if len(b.enrolments) != 1 || !enrolledWith(t, b.enrolments[0], found) || b.fetches != 0 {
		t.Errorf("%d enrolments, %d fetches of a config: it is not who it was", len(b.enrolments), b.fetches)
	}
}

// TestFoundAfterARotation: the boot service has another CA than when the machine
// was installed, and knows its key all the same.
func TestFoundAfterARotation(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, onDisk(t, "")
	n := newNode(t, b)
	found := foundOn(t, n, newCA(t))
	mayNotInstall(t, n, found)
	n.start(t)
	<-n.pid1.reboots
	if len(b.enrolments) != 1 || !enrolledWith(t, b.enrolments[0], found) {
		t.Errorf("%d enrolments: it is not who it was", len(b.enrolments))
	}
}

// TestFoundAndHeld: one that comes back from its disk over and over waits for a
// person, and says so.
func TestFoundAndHeld(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config, b.held = true, onDisk(t, ""), "it came back too often"
	n := newNode(t, b)
	mayNotInstall(t, n, foundOn(t, n, b.ca))
	n.start(t)
	awaitScreen(t, n, "waiting for a person: it came back too often")
	if len(n.pid1.reboots) != 0 {
		t.Error("it restarts all the same")
	}
	b.update(func() { b.held = "" })
	<-n.pid1.reboots
}

// TestFoundAndLetGo: one that no cluster has any more does not start again from
// its disk. It is wiped, and the machine is a new one.
func TestFoundAndLetGo(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config, b.released, b.wiping = true, onDisk(t, ""), true, "zero"
	n := newNode(t, b)
	found := foundOn(t, n, b.ca)
	d := mayNotInstall(t, n, found)
	n.start(t)
	if how := <-d.wiped; how != wipe.Zero {
		t.Errorf("wiped by %s", how)
	}
	b.await("another key", func() bool { return len(b.enrolments) > 1 })
	if enrolledWith(t, b.enrolments[1], found) {
		t.Error("it keeps its key")
	}
}

// TestResetGoesOn: a reset that a power cut ended goes on, as it was asked for,
// before the machine does anything else.
func TestResetGoesOn(t *testing.T) {
	b := newBootService(t)
	n := newNode(t, b)
	d := mayNotInstall(t, n, &sysdisk.Found{State: sysdisk.State{Path: "/dev/vda"}, Reset: wipe.Zero})
	n.start(t)
	if how := <-d.wiped; how != "zero" {
		t.Errorf("wiped by %s", how)
	}
	b.await("an enrolment", func() bool { return len(b.enrolments) > 0 })

	n, d = installed(t, newBootService(t))
	d.reset = "discard"
	n.start(t)
	<-n.pid1.reboots
	if how := <-n.pid1.wipes; how != "discard" {
		t.Errorf("from its disk, PID 1 wipes by %q", how)
	}
	if len(n.pid1.applied) != 0 || len(n.retired) != 0 {
		t.Error("it joins its cluster again, or leaves it once more")
	}
}

// TestNotFound: an installation is not gone on with when a person said so, when
// it is of another boot service, or when its key was replaced.
func TestNotFound(t *testing.T) {
	for name, prepare := range map[string]func(*bootService, *node) *sysdisk.Found{
		"anew": func(b *bootService, n *node) *sysdisk.Found { n.args.Anew = true; return foundOn(t, n, b.ca) },
		"another boot service": func(b *bootService, n *node) *sysdisk.Found {
			found := foundOn(t, n, newCA(t))
			b.unknown = func(r *bootv1.EnrollRequest) bool { return enrolledWith(t, r, found) }
			return found
		},
		"a replaced key": func(b *bootService, n *node) *sysdisk.Found { b.refuseKeys = 1; return foundOn(t, n, b.ca) },
		"a machine that has another key": func(b *bootService, n *node) *sysdisk.Found {
			if _, err := n.store.key(); err != nil {
				t.Fatal(err)
			}
			return foundOn(t, n, b.ca)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBootService(t)
			b.approved = true
			n := newNode(t, b)
			found := prepare(b, n)
			mayNotInstall(t, n, found)
			n.start(t)
			b.await("a request for a config", func() bool { return b.fetches > 0 })
			if last := b.enrolments[len(b.enrolments)-1]; enrolledWith(t, last, found) {
				t.Error("it enrolled with the key on the disk")
			}
			if len(n.pid1.reboots) != 0 {
				t.Error("it restarts")
			}
		})
	}
}

// TestLetGoWipes: an installed machine that its cluster let go wipes its disk as was asked for;
// what its disk does not know, it says.
func TestLetGoWipes(t *testing.T) {
	b := newBootService(t)
	n, _ := installed(t, b)
	newEtcdMember(t, n)
	n.start(t)
	n.pid1.take(t)
	b.await("a poll", func() bool { return b.follows > 0 })
	b.update(func() { b.released, b.wiping = true, "discard" })
	b.await("its refusal", func() bool { return strings.Contains(b.waiting, "its reset: the disk has no discard") })
	if len(n.pid1.reboots) != 0 {
		t.Error("it is wiped in another way")
	}
	b.update(func() { b.wiping = "zero" })
	<-n.pid1.reboots
	if how := <-n.pid1.wipes; how != "zero" {
		t.Errorf("wiped by %q", how)
	}
}

// TestCheckReset: what a reset would refuse is known before anything is done.
func TestCheckReset(t *testing.T) {
	b := newBootService(t)
	n, _ := installed(t, b)
	n.start(t)
	n.pid1.take(t)
	client := nodeClient(t, n, b.ca, pair(t, b.ca, admin))
	for how, want := range map[string]struct {
		code connect.Code
		says string
	}{
		"": {}, "metadata": {}, "zero": {},
		"discard":    {connect.CodeFailedPrecondition, "the disk has no discard"},
		"everything": {connect.CodeInvalidArgument, "want metadata, discard, zero"},
	} {
		_, err := client.CheckReset(t.Context(), connect.NewRequest(&nodev1.CheckResetRequest{Wipe: how}))
		checkCode(t, "CheckReset "+how, err, want.code, want.says)
		if want.code != 0 {
			_, err := readSteps(client.Reset(t.Context(), connect.NewRequest(&nodev1.ResetRequest{Wipe: how})))
			checkCode(t, "Reset "+how, err, want.code, want.says)
		}
	}
}
