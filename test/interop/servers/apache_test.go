//go:build servers

package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// startApache is Apache with PHP in its process, as Debian configures it, and with
// CGI. What makes it read more than it must is on.
func startApache(t *testing.T) *server {
	dir, address := site(t, "php", "site"), loopback.FreeAddress(t)
	if err := os.CopyFS(filepath.Join(dir, "cgi-bin"), os.DirFS("testdata/cgi-bin")); err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{"buy", "buy.cgi"} {
		if err := os.Chmod(filepath.Join(dir, "cgi-bin", script), 0o755); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "apache.conf"), fmt.Appendf(nil, `
ServerRoot %[1]s
ServerName site.test
Listen %[2]s
PidFile %[1]s/apache.pid
ErrorLog %[1]s/error.log
Mutex file:%[1]s default
LoadModule mpm_prefork_module %[3]s/mod_mpm_prefork.so
LoadModule authz_core_module %[3]s/mod_authz_core.so
LoadModule dir_module %[3]s/mod_dir.so
LoadModule mime_module %[3]s/mod_mime.so
LoadModule alias_module %[3]s/mod_alias.so
LoadModule rewrite_module %[3]s/mod_rewrite.so
LoadModule cgi_module %[3]s/mod_cgi.so
LoadModule php_module %[4]s
StartServers 4
MaxRequestWorkers 8
HttpProtocolOptions Unsafe LenientMethods
AllowEncodedSlashes On
TypesConfig /etc/mime.types
DocumentRoot %[1]s/site
<Directory %[1]s/site>
	Options Indexes FollowSymLinks
	AllowOverride All
	Require all granted
</Directory>
DirectoryIndex index.html index.php
ScriptAlias /cgi-bin/ %[1]s/cgi-bin/
<Directory %[1]s/cgi-bin>
	Options +ExecCGI
	Require all granted
</Directory>
<FilesMatch ".+\.ph(?:ar|p|tml)$">
	SetHandler application/x-httpd-php
</FilesMatch>
`, dir, address, "/usr/lib/apache2/modules", program(t, "/usr/lib/apache2/modules/libphp*.so")))
	startAs(t, nobody(t), address, dir, program(t, "/usr/sbin/apache2"), "-f", filepath.Join(dir, "apache.conf"), "-DFOREGROUND")
	return newServer("Apache + mod_php + CGI", dir, "reverse_proxy "+address, cgi)
}
