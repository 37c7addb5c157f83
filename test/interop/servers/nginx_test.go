//go:build servers

package servers

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// startNginx is nginx with php-fpm, configured as WordPress advises, with sidecars.
func startNginx(t *testing.T) *server {
	dir, address := site(t, "php", "site"), loopback.FreeAddress(t)
	fpm := startFPM(t, dir)
	user := ""
	if root() {
		user = "user root;"
	}
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, `
daemon off;
%[4]s
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
	types { text/html html; application/pdf pdf; }
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		root %[1]s/site;
		index index.php index.html;
		gzip_static on;
		underscores_in_headers on;
		location / {
			try_files $uri $uri/ /index.php?$args;
		}
		location /static {
			alias %[1]s/site/static/; # a slash too many, as many have it
		}
		location ~ [^/]\.(php|phtml)(/|$) {
			fastcgi_split_path_info ^(.+?\.(?:php|phtml))(/.*)?$;
			fastcgi_pass %[3]s;
			fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
			fastcgi_param SCRIPT_NAME $fastcgi_script_name;
			fastcgi_param PATH_INFO $fastcgi_path_info;
			fastcgi_param QUERY_STRING $query_string;
			fastcgi_param REQUEST_METHOD $request_method;
			fastcgi_param REQUEST_URI $request_uri;
			fastcgi_param DOCUMENT_URI $document_uri;
			fastcgi_param DOCUMENT_ROOT $document_root;
			fastcgi_param CONTENT_TYPE $content_type;
			fastcgi_param CONTENT_LENGTH $content_length;
			fastcgi_param SERVER_PROTOCOL $server_protocol;
		}
	}
}
`, dir, address, fpm, user))
	start(t, address, dir, program(t, "/usr/sbin/nginx"), "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	return newServer("nginx + php-fpm", dir, "reverse_proxy "+address, scripts)
}
