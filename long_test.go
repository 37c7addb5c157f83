package paywall_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestLongPathsAreDecided: what long paths and queries of real applications cost is
// known: nothing where nothing is sold, and what it says where something is.
func TestLongPathsAreDecided(t *testing.T) {
	w := gate.New(t, "price /table/* /2.3/* /bucket/* $0.01")
	coordinates := strings.Repeat("13.388860,52.517037;", 99) + "13.388860,52.517037"
	ids := strings.Repeat("11227809;", 99) + "11227809"
	for path, want := range map[string]int{
		"/route/v1/driving/" + coordinates + "?overview=false":                                       http.StatusOK,
		"/table/v1/driving/" + coordinates:                                                           http.StatusPaymentRequired,
		"/2.2/questions/" + ids + "/answers":                                                         http.StatusOK,
		"/2.3/questions/" + ids + "/answers":                                                         http.StatusPaymentRequired,
		"/remote.php/dav/files/wang/" + strings.Repeat("%E9%A1%B9", 255):                             http.StatusOK,
		"/remote.php/dav/files/kim/" + strings.Repeat("%E1%84%92%E1%85%A1%E1%86%AB", 120):            http.StatusOK,
		"/bucket/" + strings.Repeat("%E9%A1%B9", 340):                                                http.StatusPaymentRequired,
		"/img/" + strings.Repeat("eNpVjstqw//Na+4Q7", 470):                                           http.StatusOK,
		"/svg/" + strings.Repeat("%3D%7Bx%7D", 500):                                                  http.StatusOK,
		"/graphql?query=" + strings.Repeat("a", 15<<10):                                              http.StatusOK,
		"/bucket/x?query=" + strings.Repeat("a", 15<<10):                                             http.StatusPaymentRequired,
		"/route/" + strings.Repeat("%E1%84%92%E1%85%A1%E1%86%AB;%252f//", 200) + "/../%255c%2e%2e/x": http.StatusBadRequest,
	} {
		if res := w.Get(path); res.StatusCode != want {
			t.Errorf("%.60s (%d bytes): %d %s, want %d", path, len(path), res.StatusCode, res.Text, want)
		}
	}
}
