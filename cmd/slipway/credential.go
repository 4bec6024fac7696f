package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/goccy/go-yaml"
)

// credentials are what is read of a kubeconfig that the boot service issued:
// which cluster it is of, where its API is, its CA, and a person's name,
// certificate and key, PEM.
type credentials struct {
	cluster       string
	server        string
	user          string
	ca, cert, key []byte
}

// readCredentials takes a kubeconfig apart that the boot service issued.
func readCredentials(kubeconfig []byte) (c credentials, err error) {
	var file struct {
		Clusters []struct {
			Name    string `yaml:"name"`
			Cluster struct {
				Server string `yaml:"server"`
				CA     string `yaml:"certificate-authority-data"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
		Users []struct {
			Name string `yaml:"name"`
			User struct {
				Cert string `yaml:"client-certificate-data"`
				Key  string `yaml:"client-key-data"`
			} `yaml:"user"`
		} `yaml:"users"`
	}
	if err := yaml.Unmarshal(kubeconfig, &file); err != nil {
		return c, fmt.Errorf("read kubeconfig: %w", err)
	}
	if len(file.Clusters) != 1 || len(file.Users) != 1 {
		return c, errors.New("read kubeconfig: it is not of one cluster and one user")
	}
	var errs [3]error
	c.cluster, c.server, c.user = file.Clusters[0].Name, file.Clusters[0].Cluster.Server, file.Users[0].Name
	c.ca, errs[0] = base64.StdEncoding.DecodeString(file.Clusters[0].Cluster.CA)
	c.cert, errs[1] = base64.StdEncoding.DecodeString(file.Users[0].User.Cert)
	c.key, errs[2] = base64.StdEncoding.DecodeString(file.Users[0].User.Key)
	if err := errors.Join(errs[:]...); err != nil {
		return c, fmt.Errorf("read kubeconfig: %w", err)
	}
	return c, nil
}

// deleteNode deletes a Node. One that is gone already is no error.
func deleteNode(ctx context.Context, kubeconfig []byte, name string) error {
	c, err := readCredentials(kubeconfig)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca)
	web := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
	defer web.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, c.server+"/api/v1/nodes/"+url.PathEscape(name), nil)
	if err != nil {
		return err
	}
	answer, err := web.Do(request)
	if err != nil {
		return fmt.Errorf("%w; `kubectl delete node %s` does it later", err, name)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 && answer.StatusCode != http.StatusNotFound {
		return fmt.Errorf("delete node %s: %s; `kubectl delete node %s` does it later", name, answer.Status, name)
	}
	return nil
}
