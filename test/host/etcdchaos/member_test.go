package etcdchaos

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"slipway/controlplane/etcd"
	"slipway/test/netns"
)

// member is a machine that can run a member of etcd.
type member struct {
	c       *cluster
	name    string
	address netip.Addr
	host    *netns.Host
	dir     string
	// clock is how far its clocks are ahead of the computer's.
	clock   time.Duration
	process *process // nil: none, or one that was ended on purpose
	blank   bool     // its disk is empty, and it is no member
	hurt    bool     // it cannot answer, or not what needs a quorum
	peers   []etcd.Member
	client  atomic.Pointer[clientv3.Client]
}

// process is a running etcd.
type process struct {
	cmd   *exec.Cmd
	inner bool // etcd is the command's child, in a time namespace
	ended chan struct{}
}

// launch starts the process. peers are the other members, if it is new to them;
// the first of all has none.
func (m *member) launch(peers []etcd.Member, first bool) {
	t := m.c.t
	t.Helper()
	args := append([]string{m.c.brand.program}, m.c.brand.configure(m, peers, first)...)
	if m.clock != 0 {
		ahead := strconv.Itoa(int(m.clock.Seconds()))
		args = append([]string{"unshare", "--fork", "--kill-child", "--time", "--monotonic", ahead, "--boottime", ahead}, args...)
	}
	log, err := os.OpenFile(m.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	defer log.Close() // the process has its own
	p := &process{cmd: m.host.Command(context.Background(), args[0], args[1:]...), inner: m.clock != 0, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	must(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // whoever cares reads the log
		close(p.ended)
	}()
	m.process, m.blank, m.peers = p, false, peers
	m.connect()
}

// connect opens a new connection for the member's clients: an old one takes
// its time to find out that the member is back.
func (m *member) connect() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.url(2379)}, TLS: m.c.brand.tls, Logger: zap.NewNop()})
	must(m.c.t, err)
	m.disconnect(client)
}

func (m *member) disconnect(next *clientv3.Client) {
	if old := m.client.Swap(next); old != nil {
		_ = old.Close()
	}
}

// kill ends the process as the loss of power would, and returns when it was dead.
func (m *member) kill() time.Time {
	p := m.process
	m.process = nil
	_ = syscall.Kill(p.pid(), syscall.SIGKILL) // it may have ended by itself
	<-p.ended
	return time.Now()
}

func (m *member) signal(s syscall.Signal) {
	m.c.t.Helper()
	must(m.c.t, syscall.Kill(m.process.pid(), s))
}

// pid is etcd's own.
func (p *process) pid() int {
	pid := p.cmd.Process.Pid
	if !p.inner {
		return pid
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, convErr := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil || convErr != nil {
		return pid // not born yet: it dies with its parent
	}
	return child
}

// gone tells that the process has ended though nobody ended it.
func (m *member) gone() bool {
	select {
	case <-m.process.ended:
		return true
	default:
		return false
	}
}

// wipe empties the machine's disk.
func (m *member) wipe() {
	must(m.c.t, os.RemoveAll(m.dir+"/data"))
	m.blank = true
}

func (m *member) logFile() string { return filepath.Join(m.dir, "log") }

// tail is the end of the member's log.
func (m *member) tail(lines int) string {
	text, err := os.ReadFile(m.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
