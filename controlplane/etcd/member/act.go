package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"slipway/controlplane/etcd"
	"slipway/nodeinit/proc"
)

// act carries an action out. Nil means that etcd may start; errAgain that the
// facts are others now; any other error is what is waited for.
func (s *Service) act(ctx context.Context, settings *etcd.Settings, a etcd.Action, answers []answer) error {
	p := etcd.Program{Paths: s.Paths, Settings: settings, Measured: s.measured(), Members: a.Members, Quota: s.Quota}
	switch a.Kind {
	case etcd.Start:
		r, err := s.store().record(settings.Token, settings.Generation)
		if err != nil {
			return err
		}
		p.Force = settings.Recover && settings.Token != "" && r.Token != "" && !r.Done
		return s.letStart(p)
	case etcd.Join:
		return errors.Join(s.clear(settings, a.Aside), s.letStart(p))
	case etcd.Add:
		if err := s.clear(settings, a.Aside); err != nil {
			return err
		}
		return s.byOthers(ctx, answers, "add this machine as a learner", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberAddAsLearner(ctx, []string{settings.Self().PeerURL()})
			return err
		})
	case etcd.RemoveStale:
		s.Log.Warn("removing the member that this machine was before", "member", fmt.Sprintf("%x", a.Member))
		return s.byOthers(ctx, answers, "remove the member that this machine was before", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberRemove(ctx, a.Member)
			return err
		})
	case etcd.Bootstrap, etcd.Restore, etcd.Recover:
		return s.begin(ctx, settings, a, p)
	}
	if err := os.Remove(s.Paths.Config); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.New(a.Text())
}

// letStart writes etcd's configuration.
func (s *Service) letStart(p etcd.Program) error {
	if err := s.store().setMark(p.Settings.Generation, mark{Cluster: p.Settings.Cluster}); err != nil {
		return err
	}
	text, err := p.ConfigFile()
	if err != nil {
		return err
	}
	heartbeat, election := p.Measured.Timing(len(p.Settings.Members))
	s.set(func(t *told) { t.heartbeat, t.election = heartbeat, election })
	return proc.WriteFiles([]proc.File{{Path: s.Paths.Config, Mode: 0o600, Data: text}})
}

// begin makes a generation's first member. What was begun is written down
// before the boot service is asked, which says yes to one machine only.
func (s *Service) begin(ctx context.Context, settings *etcd.Settings, a etcd.Action, p etcd.Program) error {
	if err := s.store().setRecord(record{Token: settings.Token, Generation: settings.Generation}); err != nil {
		return err
	}
	s.wait("the boot service to let this machine begin the cluster")
	err := s.redeem(ctx, settings.Token, false)
	var no refused
	switch {
	case errors.As(err, &no):
		return fmt.Errorf("the boot service does not let this machine begin the cluster: %w; nothing was changed; slipway cluster status says which one may", err)
	case err != nil:
		return fmt.Errorf("the boot service to let this machine begin the cluster: %w", err)
	}
	p.New = true
	switch a.Kind {
	case etcd.Restore:
		s.wait("the snapshot")
		err = s.restore(ctx, p, a.Snapshot)
	case etcd.Recover:
		s.wait("the copy of the data of the earlier generation")
		p.Force = true
		err = s.recover(p)
	}
	if err != nil {
		return err
	}
	return s.letStart(p)
}

// newRevisions is how far apart the revisions of generations are that start from
// the same snapshot: far more than one comes to write.
const newRevisions = 1_000_000_000

// restore makes a data directory of a snapshot, whole or not at all. Revisions
// go on well after the snapshot's, and after those of a generation before that
// started from it too, so that who watched the old cluster does not take new
// changes for ones it has seen.
func (s *Service) restore(ctx context.Context, p etcd.Program, sum string) error {
	file, dir := filepath.Join(s.Paths.Data, "snapshot.db"), p.Dir()+".new"
	defer os.Remove(file)
	if err := s.fetchSnapshot(ctx, sum, file); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // of an attempt that was cut off
		return err
	}
	self := p.Settings.Self()
	cmd := exec.CommandContext(ctx, s.Paths.Etcdutl, "snapshot", "restore", file,
		"--data-dir="+dir, "--name="+self.Name, "--initial-cluster="+self.Name+"="+self.PeerURL(),
		"--initial-advertise-peer-urls="+self.PeerURL(), "--initial-cluster-token="+p.Settings.ClusterToken(),
		"--bump-revision="+strconv.Itoa(newRevisions*p.Settings.Generation), "--mark-compacted")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("restore the snapshot: %w: %s; nothing was changed", err, lastLine(out))
	}
	return s.putInPlace(dir, p.Dir())
}

// recover copies the newest data of an earlier generation. The original stays.
func (s *Service) recover(p etcd.Program) error {
	from, dir := s.store().previous(p.Settings.Generation, p.Settings.Cluster), p.Dir()+".new"
	if running, err := inUse(from); err != nil || running {
		return errors.Join(err, errors.New("the etcd of the earlier generation to stop"))
	}
	if err := os.RemoveAll(dir); err != nil { // of an attempt that was cut off
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy the data of the earlier generation: %w", err)
	}
	if err := private(dir); err != nil {
		return err
	}
	return s.putInPlace(dir, p.Dir())
}

// private is what etcd wants its folders to be.
func private(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return syncFile(path)
	})
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// putInPlace gives a data directory that is whole its name.
func (s *Service) putInPlace(from, to string) error {
	if err := os.RemoveAll(to); err != nil { // holds no member: else this would not have been decided
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(s.Paths.Data)
}

// clear makes room for a new member. Etcd must not start meanwhile, and is
// kept from it by having no configuration.
func (s *Service) clear(settings *etcd.Settings, aside bool) error {
	if err := os.Remove(s.Paths.Config); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	running, err := inUse(s.store().data(settings.Generation))
	if err != nil || running {
		return errors.Join(err, errors.New("etcd to stop"))
	}
	if !aside {
		return nil
	}
	why := "corrupt"
	if data, err := s.store().look(settings.Generation, settings.Cluster); err == nil && data.State == etcd.Ours {
		why = "removed"
	}
	kept, err := s.store().aside(settings.Generation, why, s.now())
	if err == nil {
		s.Log.Warn("the data cannot be used; this machine joins anew", "why", why, "kept", kept)
	}
	return err
}

// byOthers has one of the voters that answered do something.
func (s *Service) byOthers(ctx context.Context, answers []answer, what string, do func(context.Context, *clientv3.Client) error) error {
	err := errors.New("no voter answers")
	for _, a := range answers {
		if a.err != nil || !a.quorum {
			continue
		}
		once, cancel := context.WithTimeout(ctx, callTimeout)
		client, dialled := s.clients.to(a.endpoint)
		if err = dialled; err == nil {
			err = do(once, client)
		}
		cancel()
		if err == nil {
			return errAgain
		}
	}
	return fmt.Errorf("the others to %s: %w", what, err)
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
