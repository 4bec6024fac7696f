package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"slipway/controlplane/etcd"
	"slipway/controlplane/pki"
)

// clusterKey holds whose data it is: the boot service reads it from snapshots.
const clusterKey = "/slipway/cluster"

// identity is the value of clusterKey.
type identity struct {
	Name       string `json:"name"`
	ID         string `json:"id"`         // SHA-256, hex, of the first certificate of etcd's first CA
	Generation int    `json:"generation"` // so that members of different ones do not take each other for theirs
}

// answer is what one endpoint said.
type answer struct {
	endpoint  string
	status    *clientv3.StatusResponse
	members   []*etcdserverpb.Member // nil: a learner
	quorum    bool
	identity  identity
	roundTrip time.Duration
	err       error
}

// ask asks one member all there is to know of it.
func (s *Service) ask(ctx context.Context, endpoint string) answer {
	client, err := s.clients.to(endpoint)
	if err == nil {
		err = s.clients.reach(ctx, endpoint)
	}
	if err != nil {
		return answer{endpoint: endpoint, err: err}
	}
	a := s.question(ctx, client, endpoint)
	s.clients.answered(endpoint, a.err == nil)
	return a
}

// status asks this machine's member for its state only.
func (s *Service) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	endpoint := "https://" + s.Paths.Local
	client, err := s.clients.to(endpoint)
	if err == nil {
		err = s.clients.reach(ctx, endpoint)
	}
	if err != nil {
		return nil, err
	}
	once, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.Status(once, endpoint)
	s.clients.answered(endpoint, err == nil)
	return answer, err
}

func (s *Service) question(ctx context.Context, client *clientv3.Client, endpoint string) answer {
	a := answer{endpoint: endpoint}
	once, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if a.status, a.err = client.Status(once, endpoint); a.err != nil {
		return a
	}
	if host(endpoint) != s.Paths.Local {
		if a.roundTrip, a.err = roundTrip(once, client, endpoint); a.err != nil { // the connection stands now
			return a
		}
	}
	if found, err := client.Get(once, clusterKey, clientv3.WithSerializable()); err == nil && len(found.Kvs) == 1 {
		json.Unmarshal(found.Kvs[0].Value, &a.identity) // what is no identity names no generation
	}
	if a.status.IsLearner {
		return a
	}
	list, err := client.MemberList(once, clientv3.WithSerializable())
	if err != nil {
		a.err = err
		return a
	}
	a.members = list.Members
	if a.status.Leader == 0 {
		return a
	}
	if list, err := client.MemberList(once); err == nil {
		a.members, a.quorum = list.Members, true
	}
	return a
}

// roundTrip is the quicker of two: what else the two machines were busy with is
// not the network's fault.
func roundTrip(ctx context.Context, client *clientv3.Client, endpoint string) (quickest time.Duration, err error) {
	for range 2 {
		began := time.Now()
		if _, err := client.Status(ctx, endpoint); err != nil {
			return 0, err
		}
		if took := time.Since(began); quickest == 0 || took < quickest {
			quickest = took
		}
	}
	return quickest, nil
}

// askAll asks all endpoints at once.
func (s *Service) askAll(ctx context.Context, endpoints []string) []answer {
	answers := make([]answer, len(endpoints))
	var all sync.WaitGroup
	for i, endpoint := range endpoints {
		all.Go(func() { answers[i] = s.ask(ctx, endpoint) })
	}
	all.Wait()
	return answers
}

// survey asks the members that the config lists, but for this machine, and then
// those that they know besides.
func (s *Service) survey(ctx context.Context, settings *etcd.Settings) []answer {
	var endpoints []string
	for _, p := range settings.Members {
		if p.Name != settings.Name {
			endpoints = append(endpoints, p.ClientURL())
		}
	}
	answers := s.askAll(ctx, endpoints)
	var more []string
	for _, a := range answers {
		for _, m := range a.members {
			if len(m.ClientURLs) > 0 && m.ClientURLs[0] != settings.Self().ClientURL() && !slices.Contains(append(endpoints, more...), m.ClientURLs[0]) {
				more = append(more, m.ClientURLs[0])
			}
		}
	}
	return append(answers, s.askAll(ctx, more)...)
}

// facts gathers what Decide needs. It blocks for a few seconds when members do
// not answer.
func (s *Service) facts(ctx context.Context, settings *etcd.Settings) (etcd.Facts, []answer, error) {
	f := etcd.Facts{
		Name: settings.Name, PeerURL: settings.Self().PeerURL(), Generation: settings.Generation, Clock: s.clock(),
	}
	for _, p := range settings.Members {
		f.Intended = append(f.Intended, p.Name)
	}
	if settings.Token != "" {
		f.Grant = &etcd.Grant{Snapshot: settings.Snapshot, Recover: settings.Recover}
		f.Previous = s.store().previous(settings.Generation, settings.Cluster) != ""
		r, err := s.store().record(settings.Token, settings.Generation)
		if err != nil {
			return f, nil, err
		}
		f.Record = progress(r)
	}
	data, err := s.store().look(settings.Generation, settings.Cluster)
	if err != nil {
		return f, nil, err
	}
	f.Data = data
	if !settings.AllowSlowDisk {
		f.SlowDisk = s.measured().SlowDisk()
	}
	answers := s.survey(ctx, settings)
	f.Seen, f.Silent = views(answers)
	return f, answers, nil
}

func progress(r record) etcd.Record {
	switch {
	case r.Done:
		return etcd.Done
	case r.Token != "":
		return etcd.Begun
	}
	return etcd.NoRecord
}

// views makes of answers what Decide knows of members.
func views(answers []answer) (seen []etcd.View, silent []string) {
	healthy := map[uint64]bool{}
	for _, a := range answers {
		if a.err == nil {
			healthy[a.status.Header.MemberId] = true
		}
	}
	for _, a := range answers {
		if a.err != nil {
			silent = append(silent, host(a.endpoint)+": "+reason(a.err))
			continue
		}
		v := etcd.View{
			From: host(a.endpoint), ClusterID: a.status.Header.ClusterId, Generation: a.identity.Generation,
			Quorum: a.quorum, Blind: a.status.IsLearner,
		}
		for _, m := range a.members {
			v.Members = append(v.Members, memberOf(m, healthy[m.ID]))
		}
		seen = append(seen, v)
	}
	return seen, silent
}

func memberOf(m *etcdserverpb.Member, healthy bool) etcd.Member {
	return etcd.Member{ID: m.ID, Name: m.Name, PeerURL: strings.Join(m.PeerURLs, ","), Learner: m.IsLearner, Healthy: healthy}
}

func host(endpoint string) string { return strings.TrimPrefix(endpoint, "https://") }

// reason shortens what gRPC says of a member that does not answer, and says
// what a certificate out of its time most often means.
func reason(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	if late(err) {
		return "no answer within " + callTimeout.String()
	}
	if strings.Contains(text, "expired") || strings.Contains(text, "not yet valid") {
		return text + ": the clock of one of the two machines is wrong"
	}
	return text
}

// late says whether a call ended for want of an answer.
func late(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "context deadline exceeded")
}

// clock says why this machine's clock cannot be right: its own certificate, which
// was made on this machine, is of another time.
func (s *Service) clock() string {
	text, err := os.ReadFile(filepath.Join(s.Paths.PKI, "server.crt"))
	if err != nil {
		return ""
	}
	cert, err := pki.ParseCert(text)
	if err != nil {
		return ""
	}
	if now := s.now(); now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return fmt.Sprintf("it says %s, and etcd's certificate is valid from %s until %s", now.UTC().Format(time.DateTime), cert.NotBefore.UTC().Format(time.DateTime), cert.NotAfter.UTC().Format(time.DateTime))
	}
	return ""
}
