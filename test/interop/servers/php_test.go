//go:build servers

package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// startPHP is PHP's own server, which many small sites and all demos run on.
func startPHP(t *testing.T) *server {
	dir, address := site(t, "php", "site"), loopback.FreeAddress(t)
	// For whatever lies below a folder it takes the folder's index file, which a price for
	// folders is not for.
	if err := os.RemoveAll(filepath.Join(dir, "site", "posts")); err != nil {
		t.Fatal(err)
	}
	start(t, address, dir, program(t, "/usr/bin/php"), "-S", address, "-t", filepath.Join(dir, "site"))
	goods := slices.DeleteFunc(slices.Clone(scripts), func(g good) bool { return strings.HasPrefix(g.path, "/posts/") })
	return newServer("php -S", dir, "reverse_proxy "+address, goods)
}

// startCaddyPHP is php-fpm behind Caddy itself, as most PHP sites behind Caddy.
func startCaddyPHP(t *testing.T) *server {
	dir := site(t, "php", "site")
	behind := fmt.Sprintf(`
		root %s
		php_fastcgi %s {
			split .php .phtml
		}
		file_server {
			precompressed gzip
		}`, filepath.Join(dir, "site"), startFPM(t, dir))
	// A folder without an index.php is the front controller's business here.
	goods := slices.DeleteFunc(slices.Clone(scripts), func(g good) bool { return g.path == "/shop/" || g.path == "/posts/7/" })
	return newServer("Caddy + php-fpm", dir, behind, goods)
}

// startFPM runs PHP's processes for the servers that speak FastCGI, and says
// where they listen.
func startFPM(t *testing.T, dir string) (address string) {
	address = loopback.FreeAddress(t)
	user, flags := "", []string{"--nodaemonize", "--fpm-config", filepath.Join(dir, "fpm.conf")}
	if root() {
		user, flags = "user = root\ngroup = root", append(flags, "--allow-to-run-as-root")
	}
	write(t, filepath.Join(dir, "fpm.conf"), fmt.Appendf(nil, `[global]
pid = %[1]s/fpm.pid
error_log = %[1]s/fpm.log

[www]
%[2]s
listen = %[3]s
pm = static
pm.max_children = 4
security.limit_extensions = .php .phtml
`, dir, user, address))
	start(t, address, dir, append([]string{program(t, "/usr/sbin/php-fpm*")}, flags...)...)
	return address
}
