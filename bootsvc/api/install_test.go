package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/enroll"
	"slipway/bootsvc/inventory"
	"slipway/configs/machine"
)

const diskCluster = "name: demo\ninstall: {disk: any, dataSize: 20GiB}\nmachines: [{id: '" + machineID + "'}]\n"

// TestAMachineInstallsItself plays a machine that finds foreign data, waits for
// a person, and then says that it is installed.
func TestAMachineInstallsItself(t *testing.T) {
	s := start(t, enroll.Any())
	s.server.Office.Image = machine.Image{Version: "v1", SHA256: strings.Repeat("ab", 32)}
	m := makeMachine(t)
	enrolled, err := s.enrol(t, m)
	if err != nil || enrolled.GetState() != bootv1.EnrollResponse_APPROVED {
		t.Fatalf("%v, %v", enrolled, err)
	}
	self := s.enrolled(t, m, enrolled.GetCertificate())
	people := bootv1connect.NewInventoryServiceClient(s.person(t, Operator), s.url)
	clusters := bootv1connect.NewClusterServiceClient(s.person(t, Admin), s.url)
	if _, err := clusters.CreateCluster(t.Context(), connect.NewRequest(&bootv1.CreateClusterRequest{Cluster: []byte(diskCluster)})); err != nil {
		t.Fatal(err)
	}
	config, first := fetched(t, self, nil)
	if i := config.Install; i.Disk.Word != "any" || i.DataSize != 20*machine.GiB || i.Image.Version != "v1" || i.Wipe != "" {
		t.Errorf("it is to install %+v", i)
	}

	manifest := manifestOf("wipe manifest 1\ndisk 8 bytes\n  whole disk: ext4\n")
	if _, err := self.ReportWipe(t.Context(), connect.NewRequest(&bootv1.ReportWipeRequest{Manifest: manifest})); err != nil {
		t.Fatal(err)
	}
	waiting := fmt.Sprintf("a person to agree to the wipe manifest %.12x", manifest.GetHash())
	if _, err := self.Report(t.Context(), connect.NewRequest(&bootv1.ReportRequest{Phase: "installing", WaitingFor: waiting})); err != nil {
		t.Fatal(err)
	}
	shown := get(t, people)
	if shown.GetInstallation().GetWipe().GetText() != manifest.GetText() || !strings.Contains(shown.GetWaitingFor(), "slipway machines wipe "+machineID+" --agree ") {
		t.Errorf("shown: %v", shown)
	}
	_, err = people.AgreeWipe(t.Context(), connect.NewRequest(&bootv1.AgreeWipeRequest{Id: machineID, Hash: make([]byte, 32)}))
	wantCode(t, "another hash", err, connect.CodeFailedPrecondition, "another hash")
	if _, err := people.AgreeWipe(t.Context(), connect.NewRequest(&bootv1.AgreeWipeRequest{Id: machineID, Hash: manifest.GetHash()})); err != nil {
		t.Fatal(err)
	}
	agreed, _ := fetched(t, self, first)
	if agreed.Install.Wipe != hex.EncodeToString(manifest.GetHash()) {
		t.Errorf("the agreement in its config is %q", agreed.Install.Wipe)
	}

	_, err = people.Forget(t.Context(), connect.NewRequest(&bootv1.ForgetRequest{Id: machineID}))
	wantCode(t, "a machine of a cluster", err, connect.CodeFailedPrecondition, "slipway node reset")
	_, err = people.Forget(t.Context(), connect.NewRequest(&bootv1.ForgetRequest{Id: "sda"}))
	wantCode(t, "no machine's ID", err, connect.CodeInvalidArgument, "sda")

	disk := &bootv1.SystemDisk{Path: "/dev/vda", Good: "a", Slots: []*bootv1.Slot{{Name: "a", Version: "v1", Kubernetes: "v1.37.1"}}}
	if _, err := self.Report(t.Context(), connect.NewRequest(&bootv1.ReportRequest{Phase: "installing", SystemDisk: disk})); err != nil {
		t.Fatal(err)
	}
	if i := get(t, people).GetInstallation(); i.GetNext() != "disk" || i.GetDisk().GetPath() != "/dev/vda" || i.GetDisk().GetSlots()[0].GetKubernetes() != "v1.37.1" {
		t.Errorf("installed: %v", i)
	}
	if _, err := people.BootFrom(t.Context(), connect.NewRequest(&bootv1.BootFromRequest{Id: machineID, From: "installer"})); err != nil {
		t.Fatal(err)
	}
	if next := get(t, people).GetInstallation().GetNext(); next != "installer" {
		t.Errorf("to be installed anew, it boots from %s", next)
	}
	if _, err := self.Report(t.Context(), connect.NewRequest(&bootv1.ReportRequest{Wiped: true})); err != nil {
		t.Fatal(err)
	}
	if i := get(t, people).GetInstallation(); i != nil {
		t.Errorf("wiped: %v", i)
	}
}

// TestFoundInstalled: a machine that runs from RAM and found itself installed
// hears whether it may restart from its disk.
func TestFoundInstalled(t *testing.T) {
	s := start(t, enroll.Any())
	m := makeMachine(t)
	enrolled, err := s.enrol(t, m)
	if err != nil {
		t.Fatal(err)
	}
	self := s.enrolled(t, m, enrolled.GetCertificate())
	report := &bootv1.ReportRequest{
		SystemDisk: &bootv1.SystemDisk{Path: "/dev/vda"}, Events: []*bootv1.Event{{Name: "found", Detail: "/dev/vda"}},
	}
	for n := range inventory.MaxReturns + 1 {
		answer, err := self.Report(t.Context(), connect.NewRequest(report))
		if err != nil {
			t.Fatal(err)
		}
		if held := answer.Msg.GetHeld(); (held != "") != (n == inventory.MaxReturns) || answer.Msg.GetReleased() {
			t.Errorf("the %dth time it hears %v", n+1, answer.Msg)
		}
	}
	people := bootv1connect.NewInventoryServiceClient(s.person(t, Operator), s.url)
	if shown := get(t, people); shown.GetInstallation().GetHeld() == "" || shown.GetWaitingFor() != shown.GetInstallation().GetHeld() {
		t.Errorf("shown: %v", shown)
	}
	if _, err := people.Forget(t.Context(), connect.NewRequest(&bootv1.ForgetRequest{Id: machineID})); err != nil {
		t.Fatal(err)
	}
	_, err = people.GetMachine(t.Context(), connect.NewRequest(&bootv1.GetMachineRequest{Id: machineID}))
	wantCode(t, "forgotten", err, connect.CodeNotFound, "")
}

func TestWipeManifestsAndDisksThatAreNone(t *testing.T) {
	s := start(t, enroll.Any())
	m := makeMachine(t)
	enrolled, err := s.enrol(t, m)
	if err != nil {
		t.Fatal(err)
	}
	self := s.enrolled(t, m, enrolled.GetCertificate())
	people := bootv1connect.NewInventoryServiceClient(s.person(t, Operator), s.url)
	good := manifestOf("text\n")
	for want, bad := range map[string]*bootv1.WipeManifest{
		"1 to 256 disks":             {Hash: good.Hash, Text: good.Text},
		"printable":                  manifestOf("\x1b[2J"),
		"at most 65536 bytes":        manifestOf(strings.Repeat("x", maxManifest+1)),
		"is not that of its text":    {Hash: good.Hash, Text: "text", Disks: good.Disks},
		"257 signatures on /dev/sda": manifestOf("many", make([]*bootv1.Signature, maxSignatures+1)...),
	} {
		_, err := self.ReportWipe(t.Context(), connect.NewRequest(&bootv1.ReportWipeRequest{Manifest: bad}))
		wantCode(t, want, err, connect.CodeInvalidArgument, want)
	}
	for want, bad := range map[string]*bootv1.SystemDisk{
		"has a path": {},
		"not a slot": {Path: "/dev/sda", Good: "c"},
		"two slots":  {Path: "/dev/sda", Slots: make([]*bootv1.Slot, 3)},
	} {
		_, err := self.Report(t.Context(), connect.NewRequest(&bootv1.ReportRequest{SystemDisk: bad}))
		wantCode(t, want, err, connect.CodeInvalidArgument, want)
	}
	_, err = people.AgreeWipe(t.Context(), connect.NewRequest(&bootv1.AgreeWipeRequest{Id: machineID, Hash: good.Hash}))
	wantCode(t, "nothing was asked", err, connect.CodeFailedPrecondition, "has not asked")
	_, err = people.BootFrom(t.Context(), connect.NewRequest(&bootv1.BootFromRequest{Id: machineID, From: "floppy"}))
	wantCode(t, "a floppy", err, connect.CodeInvalidArgument, "disk, installer")
	_, err = people.BootFrom(t.Context(), connect.NewRequest(&bootv1.BootFromRequest{Id: "52-54-00-00-00-99", From: "disk"}))
	wantCode(t, "an unknown machine", err, connect.CodeNotFound, "")
}

func manifestOf(text string, found ...*bootv1.Signature) *bootv1.WipeManifest {
	sum := sha256.Sum256([]byte(text))
	return &bootv1.WipeManifest{Hash: sum[:], Text: text, Disks: []*bootv1.WipeDisk{{Path: "/dev/sda", Signatures: found}}}
}

// fetched is the config that a machine gets, which it then acknowledges, and its digest.
func fetched(t *testing.T, self bootv1connect.MachineServiceClient, have []byte) (*machine.Config, []byte) {
	t.Helper()
	answer, err := self.FetchConfig(t.Context(), connect.NewRequest(&bootv1.FetchConfigRequest{Have: have}))
	if err != nil {
		t.Fatal(err)
	}
	config, err := machine.Parse(answer.Msg.GetConfig(), "config")
	if err != nil {
		t.Fatalf("%v: %v", answer.Msg, err)
	}
	sum := sha256.Sum256(answer.Msg.GetConfig())
	if _, err := self.AckConfig(t.Context(), connect.NewRequest(&bootv1.AckConfigRequest{Config: sum[:]})); err != nil {
		t.Fatal(err)
	}
	return config, sum[:]
}

func get(t *testing.T, people bootv1connect.InventoryServiceClient) *bootv1.Machine {
	t.Helper()
	answer, err := people.GetMachine(t.Context(), connect.NewRequest(&bootv1.GetMachineRequest{Id: machineID}))
	if err != nil {
		t.Fatal(err)
	}
	return answer.Msg.GetMachine()
}
