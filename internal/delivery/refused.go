package delivery

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// Who uploads and is refused must get to read why. A connection that is closed while its
// client still sends is reset, and most clients then drop the answer that they already have
// (RFC 9112, section 9.6). So what net/http does for a body that nobody has read is done
// here too: some of it is read, and the connection is half closed for a moment before it
// is closed. Only the order differs: the answer comes first, since a slow sender might not
// send so much for a long time, or ever.
const (
	// MaxRefused is how much of a refused upload is read, and dropped: what net/http
	// reads of a body. Clients that send all before they read can send at least so much.
	MaxRefused = 256 << 10
	// refusedPause is how long a refused sender may pause: nobody holds us by silence.
	refusedPause = time.Second
)

// EndRefused is called when a refusal that ends its connection (Connection: close) was
// written, and its client may still be uploading. HTTP/1 only. It returns when the body has
// come, or enough of it, or the client takes too long: grace is UploadGrace, except in tests.
func EndRefused(w http.ResponseWriter, r *http.Request, grace time.Duration) {
	controller := http.NewResponseController(w) //nolint:bodyclose // a controller is no response
	if r.Header.Get("Expect") == "" {
		if dropRefused(controller, r.Body, grace) {
			return
		}
	} else {
		// Who has announced the body most likely does not send it: net/http does not wait for
		// it long. And where something around us holds the answer back, reading here would
		// ask for the body (100 Continue).
		_ = controller.SetReadDeadline(time.Now().Add(refusedPause))
	}
	// A body that exceeds its limit makes net/http half close the connection, and wait. It
	// knows only its own response writer for that.
	limited := http.MaxBytesReader(innermost(w), io.NopCloser(strings.NewReader("x")), 0)
	_, _ = limited.Read(make([]byte, 1))
}

// dropRefused reads, after the answer, and says whether the whole body has come.
func dropRefused(controller *http.ResponseController, body io.Reader, grace time.Duration) bool {
	if controller.Flush() != nil {
		return false
	}
	end := time.Now().Add(grace)
	buffer := make([]byte, 16<<10)
	for read := 0; read < MaxRefused; {
		pause := time.Now().Add(refusedPause)
		if pause.After(end) {
			pause = end
		}
		if controller.SetReadDeadline(pause) != nil {
			return false
		}
		n, err := body.Read(buffer)
		if err != nil {
			return errors.Is(err, io.EOF)
		}
		read += n
	}
	return false
}

// innermost is the writer that others were put around.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}
