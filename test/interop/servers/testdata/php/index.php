<?php
// The front controller of a small site, made like those of WordPress, Laravel and
// the old Zend Framework: every path that is no file comes here, and the path and
// the method may be said in more than one way.

function action(string $name): void
{
	$log = dirname(__DIR__) . '/actions.log';
	file_put_contents($log, ($_SERVER['HTTP_X_PROBE'] ?? 'unknown') . " $name\n", FILE_APPEND | LOCK_EX);
	echo "GOODS-$name";
}

$uri = $_SERVER['HTTP_X_ORIGINAL_URL'] ?? $_SERVER['HTTP_X_REWRITE_URL'] ?? $_SERVER['REQUEST_URI'];
$path = ($_SERVER['PATH_INFO'] ?? '') ?: (parse_url($uri, PHP_URL_PATH) ?: '/');
$path = preg_replace('#/+#', '/', rawurldecode($path));
$path = preg_replace('#^/index\.php#', '', $path); // as Symfony did until CVE-2025-64500
$path = '/' . trim($path, "/ \t\r\n\0");
$method = strtoupper($_SERVER['HTTP_X_HTTP_METHOD_OVERRIDE'] ?? $_GET['_method'] ?? $_SERVER['REQUEST_METHOD']);

if ($path === '/' && (int) ($_GET['p'] ?? 0) > 0) {
	echo 'GOODS-post';
} elseif ($path === '/') {
	echo 'home';
} elseif ($path === '/free') {
	echo 'free';
} elseif (preg_match('#^/articles/\w+$#', $path)) {
	echo 'GOODS-article';
} elseif ($path === '/api/send') { // whatever the method
	action('send');
} elseif ($path === '/api/order' && $method === 'POST') {
	action('order');
} elseif ($path === '/api/order') {
	echo 'a form';
} else {
	http_response_code(404);
	echo 'not found';
}
