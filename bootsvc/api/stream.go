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

// extend gives a call this long from now for what it does next, each way: for a
// stream's next message, which a client that is gone neither takes nor sends.
func extend(ctx context.Context, by time.Duration) {
	if deadlines, ok := ctx.Value(deadlinesKey{}).(*http.ResponseController); ok {
		at := time.Now().Add(by)          // the network's clock is the system's
		_ = deadlines.SetReadDeadline(at) // only fails when the request has ended
		_ = deadlines.SetWriteDeadline(at)
	}
}
