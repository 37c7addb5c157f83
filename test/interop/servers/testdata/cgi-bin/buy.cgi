#!/bin/sh
# A script of its own, which does not look at the path after its name.
printf 'Content-Type: text/plain\r\n\r\nGOODS-cgi'
