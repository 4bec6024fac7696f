package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// State says how far a lab is.
type State string

// The states of a lab.
const (
	StateStarting State = "starting"
	StateUp       State = "up"
	StateDead     State = "dead" // its holder has ended; logs and consoles are still there
)

// Status is what a lab says about itself.
type Status struct {
	Name     string          `json:"name"`
	State    State           `json:"state"`
	Dir      string          `json:"dir"` // logs, consoles, disks
	PID      int             `json:"pid,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	Address  string          `json:"address,omitempty"`
	Accel    Accel           `json:"accel,omitempty"`
	Service  *ProcessStatus  `json:"service,omitempty"`
	Machines []MachineStatus `json:"machines,omitempty"`
}

// ProcessStatus tells of a process of the lab: the boot service, or the QEMU of a machine.
type ProcessStatus struct {
	Running bool      `json:"running"`
	PID     int       `json:"pid,omitempty"` // in the lab's own process namespace
	Since   time.Time `json:"since,omitzero"`
	LastEnd string    `json:"lastEnd,omitempty"`
}

// MachineStatus is a machine and its QEMU; Running means that it is powered on.
type MachineStatus struct {
	Machine
	ProcessStatus
}

// serveControl answers on the control socket in the working directory until ctx ends.
func serveControl(ctx context.Context, r *rack) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", controlFile)
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	server := &http.Server{Handler: controlHandler(r), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control: %w", err)
	}
	return nil
}

func controlHandler(r *rack) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.status())
	})
	mux.HandleFunc("POST /machines/{name}/{action}", func(w http.ResponseWriter, req *http.Request) {
		g, err := r.guest(req.PathValue("name"))
		if err == nil {
			r.log.Info("power", "machine", g.spec.Name, "action", req.PathValue("action"))
			err = g.do(Action(req.PathValue("action")))
		}
		answer(w, err)
	})
	mux.HandleFunc("POST /service/{action}", func(w http.ResponseWriter, req *http.Request) {
		if r.service == nil {
			answer(w, errors.New("boot service: this lab has none"))
			return
		}
		answer(w, r.service.do(req.Context(), Action(req.PathValue("action"))))
	})
	return mux
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// call makes one request to the control socket in dir and decodes the answer, if any, to out.
func call(ctx context.Context, dir, method, path string, out any) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, dir) },
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the lab: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the lab: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("ask the lab: %w", err)
	case resp.StatusCode >= 400:
		return errors.New(strings.TrimSpace(string(body)))
	case out != nil:
		return json.Unmarshal(body, out)
	}
	return nil
}

// dialControl goes through the directory's descriptor: the path of a Unix socket may only
// have 107 bytes, and state directories can be deeper than that.
func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), controlFile))
}
