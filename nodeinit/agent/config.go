package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/machine"
)

// errDelivered says that the config was delivered once and is not here: this
// key gets it no more.
var errDelivered = errors.New("the boot service delivered the config to this key already, and it is lost")

// delivery is the way from a certificate to a config.
type delivery struct {
	client  bootv1connect.MachineServiceClient
	store   store
	console *console
	failed  func(error) // is told of a config that cannot be used
	// prepare starts what every node runs, and returns when it does; nil: it is
	// not known how.
	prepare func(context.Context) error

	mayPrepare, prepared bool
}

// fetching allows for the 30 s that FetchConfig blocks.
var fetching = attempts{deadline: 45 * time.Second, first: 250 * time.Millisecond, most: 3 * time.Second}

// machineClient speaks as the machine, with whatever certificate is stored
// when a connection opens. What the boot service thinks of that goes to news.
func machineClient(args Args, s store, t *trust, news chan<- verdict) (bootv1connect.MachineServiceClient, func()) {
	transport := newTransport(t.client(s.certificate))
	hearing := &hearing{to: transport, store: s, news: news}
	client := bootv1connect.NewMachineServiceClient(&http.Client{Transport: hearing}, args.Server.String(), connect.WithReadMaxBytes(maxAnswer))
	return client, transport.CloseIdleConnections
}

// config returns the machine's config, as stored or as delivered now.
func (d *delivery) config(ctx context.Context) ([]byte, *machine.Config, error) {
	data, err := d.store.load(configFile)
	if err != nil {
		return nil, nil, err
	}
	if data == nil {
		const what = "the machine's config"
		if err := d.console.until(ctx, fetching, what, d.fetch); err != nil {
			return nil, nil, err
		}
		if data, err = d.store.load(configFile); err != nil {
			return nil, nil, err
		}
	}
	config, err := machine.Parse(data, configFile)
	if err != nil {
		return nil, nil, err
	}
	return data, config, nil
}

// fetch asks once and stores what it gets, certificate first: a config that
// is stored says that all is.
func (d *delivery) fetch(ctx context.Context) error {
	if d.mayPrepare && !d.prepared {
		return d.prepareOnce(ctx)
	}
	answer, err := d.client.FetchConfig(ctx, connect.NewRequest(&bootv1.FetchConfigRequest{Prepared: d.prepared}))
	switch {
	case connect.CodeOf(err) == connect.CodeFailedPrecondition:
		return finalError{fmt.Errorf("%w: %w", errDelivered, err)}
	case connect.CodeOf(err) == connect.CodePermissionDenied:
		return finalError{fmt.Errorf("%w: %w", errKeyRefused, err)}
	case err != nil:
		return err
	case len(answer.Msg.Config) == 0:
		d.mayPrepare = answer.Msg.Prepare
		return pendingError{firstOf(answer.Msg.WaitingFor, "a cluster that claims this machine")}
	}
	_, err = d.accept(answer.Msg, nil)
	return err
}

// prepareOnce uses the time until there is a config. What it cannot start is
// tried again when the config comes. It has the config asked for once more.
func (d *delivery) prepareOnce(ctx context.Context) error {
	d.prepared = true
	d.console.wait("what every node runs to start", "asks for its config after that")
	if err := d.prepare(ctx); err != nil {
		d.console.log.Warn("starting what every node runs", "error", err)
	}
	return pendingError{"the machine's config"}
}

// accept stores a config that was delivered, after the certificate that came
// with it. One that is not valid, or not for the node that runs here, is left
// alone, and current stays what it is; nil if there is none.
func (d *delivery) accept(answer *bootv1.FetchConfigResponse, current *machine.Config) (*machine.Config, error) {
	config, err := machine.Parse(answer.Config, "config")
	if err == nil && current != nil {
		err = current.CheckSuccessor(config)
	}
	if err != nil {
		err = fmt.Errorf("the delivered config is not valid: %w", err)
		d.failed(err)
		return nil, err
	}
	if len(answer.Certificate) > 0 {
		if err := d.store.replaceCertificate(answer.Certificate); err != nil {
			return nil, err
		}
	}
	return config, d.store.save(configFile, answer.Config)
}

// acknowledge says which config is stored. An agent that was restarted says it
// again: it does not know whether it was heard.
func (d *delivery) acknowledge(ctx context.Context, digest []byte) error {
	return d.console.until(ctx, asking, "the boot service's receipt of the config", func(ctx context.Context) error {
		_, err := d.client.AckConfig(ctx, connect.NewRequest(&bootv1.AckConfigRequest{Config: digest}))
		if connect.CodeOf(err) == connect.CodePermissionDenied {
			d.console.say("the boot service refuses this machine's key; the node goes on with the config it has: %v", err)
			return nil
		}
		return err
	})
}
