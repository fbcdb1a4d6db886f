// Package track records runs and finds them again.
//
// A run is a folder. What it is stands in run.json (config, seed, checksums, versions, backend), what happened in
// journal.jsonl, and what people say about it in notes.json. A training writes the journal as it goes:
//
//	journal, err := track.Start("runs/first", track.Record{Config: config, Seed: 42})
//	for step := 1; step <= 100; step++ {
//		journal.Log(step, map[string]float64{"train/loss": loss})
//	}
//	err = journal.Close(nil) // finished; an error says that it failed
//
// The journal is the truth. Each of its lines is one write to the system, whole with its checksum, so that a process may
// be killed at any moment: what is read then is all that was logged before. A [Store] is an index over the runs below a
// folder, in SQLite, which is made from the folders, follows them whenever it is opened, and may be deleted at any time:
//
//	store, err := track.Open(ctx, "runs")
//	runs, err := store.Runs(ctx, track.Query{Where: []string{"status=finished"}, Sort: "-test/f1"})
//	series, err := runs[0].Series()
//
// Packages tensorboard and mlflow, below this one, hand runs on; package ui shows them in a browser. The commands are
// those of "elastic runs" and "elastic ui".
package track
