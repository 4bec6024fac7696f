package serve

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/machine"
)

// patience is how long a driven machine waits for a config before it says that
// it still waits. What is not held back comes at once.
const patience = 3 * time.Second

// driven is a machine that does what it is told.
type driven struct {
	self   bootv1connect.MachineServiceClient
	config []byte // what it has stored
	parsed *machine.Config

	server   string
	believer *believer
}

// driven prints one line for each line that it reads.
func (p *part) driven(ctx context.Context, cue *bufio.Scanner, request *bootv1.EnrollRequest, answer *bootv1.EnrollResponse) error {
	d := &driven{server: p.Server, believer: &believer{
		pin: p.CA, trusted: answer.GetCa(), request: request, key: p.key, cert: answer.GetCertificate(),
	}}
	if err := d.reconnect(); err != nil {
		return fmt.Errorf("it is not approved: %w", err)
	}
	fmt.Println("approved")
	for cue.Scan() {
		answer, err := d.do(ctx, cue.Text())
		if err != nil {
			answer = connect.CodeOf(err).String()
		}
		fmt.Println(answer)
	}
	return nil
}

func (d *driven) do(ctx context.Context, order string) (string, error) {
	switch order {
	case "fetch":
		return d.fetch(ctx)
	case "ack":
		_, err := d.self.AckConfig(ctx, connect.NewRequest(&bootv1.AckConfigRequest{Config: digest(d.config)}))
		return "stored", err
	case "redeem", "done":
		token := d.parsed.Etcd.Bootstrap.Token.Reveal()
		_, err := d.self.RedeemBootstrap(ctx, connect.NewRequest(&bootv1.RedeemBootstrapRequest{Token: token, Done: order == "done"}))
		return "may", err
	case "ready":
		return d.report(ctx, "ready", &bootv1.EtcdState{MemberId: "1", Generation: int32(d.parsed.Etcd.Generation), Voter: true, Healthy: true})
	case "learner":
		return d.report(ctx, "joining", &bootv1.EtcdState{MemberId: "1", Generation: int32(d.parsed.Etcd.Generation), Healthy: true})
	case "installed", "from disk", "found":
		return d.lives(ctx, order)
	case "count":
		cas := func(bundle string) int { return strings.Count(bundle, "BEGIN CERTIFICATE") }
		keys := d.parsed.ControlPlaneKeys
		return fmt.Sprintf("trusts %d etcd-ca, %d kubernetes-ca, has %d keys, rewrites %v",
			cas(d.parsed.Etcd.CA), cas(d.parsed.Cluster.CA), len(keys.EncryptionKeys), keys.RewriteSecrets), nil
	case "trust", "renew", "enrol":
		return d.trusting(ctx, order)
	}
	return "", fmt.Errorf("%q is no order", order)
}

func (d *driven) fetch(ctx context.Context) (string, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := d.self.FetchConfig(limited, connect.NewRequest(&bootv1.FetchConfigRequest{Have: digest(d.config)}))
	switch {
	case connect.CodeOf(err) == connect.CodeDeadlineExceeded: // whoever noticed it first
		return "waits", nil
	case err != nil:
		return "", err
	case answer.Msg.GetReleased():
		return "released", nil
	case answer.Msg.GetConfig() == nil:
		return "waits for " + answer.Msg.GetWaitingFor(), nil
	}
	d.config = answer.Msg.GetConfig()
	if d.parsed, err = machine.Parse(d.config, "config"); err != nil {
		return "", err
	}
	e := d.parsed.Etcd
	return fmt.Sprintf("config %s of generation %d, %d members, starts %v", d.parsed.Hostname, e.Generation, len(e.Members), e.Bootstrap != nil), nil
}

func (d *driven) report(ctx context.Context, phase string, e *bootv1.EtcdState) (string, error) {
	_, err := d.self.Report(ctx, connect.NewRequest(&bootv1.ReportRequest{Phase: phase, Applied: digest(d.config), Etcd: e}))
	return "said", err
}

// lives reports where the machine lives: installed just now, running from there,
// or found so by the installer.
func (d *driven) lives(ctx context.Context, order string) (string, error) {
	report := &bootv1.ReportRequest{SystemDisk: &bootv1.SystemDisk{Path: "/dev/vda", Good: "a"}}
	switch order {
	case "from disk":
		report.SystemDisk.Booted = "a"
	case "found":
		report.Events = []*bootv1.Event{{Name: "found", Detail: "/dev/vda"}}
	}
	answer, err := d.self.Report(ctx, connect.NewRequest(report))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("held %t, let go %t", answer.Msg.GetHeld() != "", answer.Msg.GetReleased()), nil
}

func digest(config []byte) []byte {
	if config == nil {
		return nil
	}
	sum := sha256.Sum256(config)
	return sum[:]
}
