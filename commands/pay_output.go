package commands

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// output is where the body of an answer goes.
type output struct {
	w       io.Writer
	file    *os.File // nil for stdout
	rewinds bool     // what was written can be thrown away
	created bool     // the file is ours to remove
	used    bool
}

// openOutput opens a file for writing, which is better found impossible before
// something is paid. What it holds stays until there is an answer.
func openOutput(name string, stdout io.Writer) (*output, error) {
	if name == "" || name == "-" {
		return &output{w: stdout}, nil
	}
	_, err := os.Stat(name)
	f, openErr := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666) //nolint:gosec // the user's umask decides, as with every download
	if openErr != nil {
		return nil, fmt.Errorf("--output: %w", openErr)
	}
	o := &output{w: f, file: f, created: os.IsNotExist(err)}
	if info, err := f.Stat(); err == nil {
		o.rewinds = info.Mode().IsRegular()
	}
	return o, nil
}

// write streams an answer out, and closes its body. The errors are of reading
// and of writing; each has another remedy.
func (o *output) write(resp *http.Response, header bool) (read, written error) {
	defer resp.Body.Close() //nolint:errcheck // it was only read
	if o.rewinds {
		if err := o.file.Truncate(0); err != nil {
			return nil, err
		}
		if _, err := o.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	}
	o.used = true
	if header {
		if err := writeHeader(o.w, resp); err != nil {
			return nil, err
		}
	}
	body := &failingReader{Reader: resp.Body}
	if _, err := io.Copy(o.w, body); err != nil && body.err == nil {
		return nil, err
	}
	return body.err, nil
}

// writeHeader writes the header for people: only what shows of it.
func writeHeader(w io.Writer, resp *http.Response) error {
	var lines bytes.Buffer
	if err := resp.Header.Write(&lines); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s\r\n", strip(resp.Proto+" "+resp.Status)); err != nil {
		return err
	}
	for line := range strings.Lines(lines.String()) {
		if _, err := fmt.Fprintf(w, "%s\r\n", strip(strings.TrimRight(line, "\r\n"))); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}

// close closes the file, and removes one that got no answer.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	if err := o.file.Close(); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	if o.created && !o.used {
		return os.Remove(o.file.Name())
	}
	return nil
}

// failingReader keeps the error of reading apart from that of writing.
type failingReader struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (r *failingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
