package serve

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// member is the etcd of the machine that is played: a real one, which is started
// when a snapshot is wanted, behind the node API.
type member struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	config *machine.Config
}

func (m *member) Status(context.Context, *connect.Request[nodev1.EtcdStatusRequest]) (*connect.Response[nodev1.EtcdStatusResponse], error) {
	return connect.NewResponse(&nodev1.EtcdStatusResponse{Running: true, MemberId: "a", LeaderId: "a", Generation: 1}), nil
}

func (m *member) Snapshot(ctx context.Context, _ *connect.Request[nodev1.EtcdSnapshotRequest], out *connect.ServerStream[nodev1.EtcdSnapshotChunk]) error {
	dir, err := os.MkdirTemp("", "member")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	client, end, err := startEtcd(dir)
	if err != nil {
		return err
	}
	defer end()
	if err := m.fill(ctx, client); err != nil {
		return err
	}
	from, err := client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer from.Close()
	for piece := make([]byte, 64<<10); ; {
		n, err := from.Read(piece)
		if n > 0 {
			if err := out.Send(&nodev1.EtcdSnapshotChunk{Data: piece[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill writes what a cluster's etcd has: which cluster it is, and objects.
func (m *member) fill(ctx context.Context, client *clientv3.Client) error {
	ca, err := pki.ParseCert([]byte(m.config.Etcd.CA))
	if err != nil {
		return err
	}
	identity := fmt.Sprintf(`{"name":%q,"id":%q}`, m.config.Cluster.Name, pki.CertHash(ca))
	if _, err := client.Put(ctx, "/slipway/cluster", identity); err != nil {
		return err
	}
	for n := range 99 {
		if _, err := client.Put(ctx, fmt.Sprint("/registry/", n), identity); err != nil {
			return err
		}
	}
	return nil
}

func startEtcd(dir string) (*clientv3.Client, func(), error) {
	at := url.URL{Scheme: "unix", Path: filepath.Join(dir, "client")}
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "data")
	config.ListenPeerUrls = nil
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	config.TickMs, config.ElectionMs = 10, 50
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, nil, err
	}
	<-etcd.Server.ReadyNotify()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{at.String()}, Logger: zap.NewNop()})
	if err != nil {
		etcd.Close()
		return nil, nil, err
	}
	return client, func() { client.Close(); etcd.Close() }, nil
}

// etcd does what the machine is told about its etcd.
func (p *part) etcd(ctx context.Context, cue string) error {
	switch cue {
	case "serve":
		return p.serveNode()
	case "voter":
		_, err := p.self.Report(ctx, connect.NewRequest(&bootv1.ReportRequest{
			Phase: "ready", Etcd: &bootv1.EtcdState{MemberId: "a", Generation: 1, Voter: true, Healthy: true},
		}))
		fmt.Println("said")
		return err
	}
	return p.restore(ctx)
}

// serveNode serves the node API as the agent does, until the machine ends: to
// whom the boot service gave the role for snapshots, and to nobody else.
func (p *part) serveNode() error {
	cert, err := tls.X509KeyPair(p.certificate, p.key)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.config.Cluster.MachineCA))
	listener, err := net.Listen("tcp4", net.JoinHostPort(p.Address, "8444"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewEtcdServiceHandler(&member{config: p.config}))
	server := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, MinVersion: tls.VersionTLS13},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if roles := r.TLS.PeerCertificates[0].Subject.Organization; !slices.Equal(roles, []string{"slipway:etcd-backup"}) {
				http.Error(w, fmt.Sprint("refused: ", roles), http.StatusForbidden)
				return
			}
			mux.ServeHTTP(w, r)
		}),
	}
	go server.ServeTLS(listener, "", "") // until the process ends
	fmt.Println("serving")
	return nil
}

// restore waits for a config that wants etcd to be started from a snapshot, and
// fetches it.
func (p *part) restore(ctx context.Context) error {
	answer, err := p.self.FetchConfig(ctx, connect.NewRequest(&bootv1.FetchConfigRequest{Have: p.have}))
	if err != nil {
		return err
	}
	config, err := machine.Parse(answer.Msg.GetConfig(), "config")
	if err != nil {
		return err
	}
	if config.Etcd.Generation != 2 || config.Etcd.Bootstrap == nil {
		return fmt.Errorf("the config does not restore: %+v", config.Etcd)
	}
	sum, err := hex.DecodeString(config.Etcd.Bootstrap.Snapshot)
	if err != nil {
		return err
	}
	stream, err := p.self.FetchSnapshot(ctx, connect.NewRequest(&bootv1.FetchSnapshotRequest{Sha256: sum}))
	if err != nil {
		return err
	}
	defer stream.Close()
	hash := sha256.New()
	for stream.Receive() {
		hash.Write(stream.Msg().GetData())
	}
	fmt.Printf("fetched %x\n", hash.Sum(nil))
	return stream.Err()
}
