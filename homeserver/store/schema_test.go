package store_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSchema shows what the migrations make, so that a change of the schema is
// seen as such in a review. Run it with -update after adding a migration, with
// a PostgreSQL server at hand.
func TestSchema(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		if _, err := store.New(t.Context(), db, storetest.Budget); err != nil {
			t.Fatal(err)
		}
		got, err := db.Schema(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		golden := "schema.sqlite.sql"
		if strings.HasSuffix(t.Name(), "PostgreSQL") {
			golden = "schema.postgres.sql"
		}
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("the migrations make another schema than %s shows; run the test with -update and look at the difference", golden)
		}
	})
}
