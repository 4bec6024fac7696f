package api

import (
	"context"
	"net/http"
	"time"
)

// maxChunk is how many bytes of a snapshot go into one message.
const maxChunk = 256 << 10

type deadlinesKey struct{}

// withDeadlines lets the handler of a stream move the deadlines of its request,
// which the server has set for calls of one message.
func withDeadlines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), deadlinesKey{}, http.NewResponseController(w))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// extend gives a stream until writeTimeout from now for its next message, each
// way. A client that neither takes nor sends anything for that long is gone.
func extend(ctx context.Context) {
	if deadlines, ok := ctx.Value(deadlinesKey{}).(*http.ResponseController); ok {
		at := time.Now().Add(writeTimeout) // the network's clock is the system's
		_ = deadlines.SetReadDeadline(at)  // only fails when the request has ended
		_ = deadlines.SetWriteDeadline(at)
	}
}
