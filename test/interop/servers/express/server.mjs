// A small site with Express. node server.mjs <port> <directory>: its files are in
// `files` of that directory, and what acted is written to `actions.log` there.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import express from "express";

const [port, directory] = process.argv.slice(2);
const app = express();
app.set("query parser", "extended");

function action(name, req, res) {
	appendFileSync(join(directory, "actions.log"), `${req.get("X-Probe") ?? "unknown"} ${name}\n`);
	res.send(`GOODS-${name}`);
}

app.all("/api/send", (req, res) => action("send", req, res)); // whatever the method
app.all("/api/order", (req, res) => {
	const method = req.get("X-HTTP-Method-Override") ?? req.query._method ?? req.method;
	String(method).toUpperCase() === "POST" ? action("order", req, res) : res.send("a form");
});
app.get(["/", "/index.php"], (req, res) => res.send(parseInt(req.query.p) > 0 ? "GOODS-post" : "home"));
app.get("/free", (req, res) => res.send("free"));
app.get("/articles/:name", (req, res) => res.send("GOODS-article"));
app.use(express.static(join(directory, "files")));
app.listen(Number(port), "127.0.0.1");
