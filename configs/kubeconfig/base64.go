package kubeconfig

import b64 "encoding/base64"

// base64 is bytes that YAML shows as base64 text.
type base64 []byte

// MarshalYAML encodes.
func (b base64) MarshalYAML() (any, error) { return b64.StdEncoding.EncodeToString(b), nil }
