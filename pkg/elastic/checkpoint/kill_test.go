package checkpoint_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
)

const killEnv = "CHECKPOINT_TEST_SAVE_UNTIL_KILLED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		saveUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// saveUntilKilled is the child: it saves one step after the other, says so
// after each, and marks every other one as the best.
func saveUntilKilled(dir string) {
	run := checkpoint.Run{Dir: dir, Keep: 2}
	steps, err := run.Steps()
	step := 0
	if len(steps) > 0 {
		step = steps[len(steps)-1]
	}
	for err == nil {
		step++
		if _, err = run.Save(sample(step)); err != nil {
			break
		}
		fmt.Println("saved", step)
		if step%2 == 0 {
			if err = run.MarkBest(step); err == nil {
				fmt.Println("best", step)
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestKilledWhileSaving kills a process that saves all the time, at random
// moments, and wants all that it had finished.
func TestKilledWhileSaving(t *testing.T) {
	kills := 20
	if n, err := strconv.Atoi(os.Getenv("CHECKPOINT_TEST_KILLS")); err == nil {
		kills = n
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := checkpoint.Run{Dir: t.TempDir(), Keep: 2}
	random := rand.New(rand.NewPCG(5, 6))
	leftovers := 0
	saved, best := 0, 0 // what a child said it had finished
	note := func(line string) {
		_, _ = fmt.Sscanf(line, "saved %d", &saved)
		_, _ = fmt.Sscanf(line, "best %d", &best)
	}
	for range kills {
		child := exec.Command(executable)
		child.Env = append(os.Environ(), killEnv+"="+run.Dir)
		var said strings.Builder
		child.Stderr = &said
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if lines.Scan() { // it has begun
			note(lines.Text())
		}
		// A pause, so that the moments differ; nothing depends on its length.
		timer := time.AfterFunc(time.Duration(random.IntN(30000))*time.Microsecond, func() { _ = child.Process.Kill() })
		for lines.Scan() {
			note(lines.Text())
		}
		_ = child.Wait()
		timer.Stop()
		if said.Len() > 0 || saved == 0 {
			t.Fatalf("the child failed by itself after step %d: %s", saved, said.String())
		}
		for _, name := range entries(t, run.Dir+"/checkpoints") {
			if strings.HasPrefix(name, ".") {
				leftovers++
			}
		}

		steps, err := run.Steps()
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range steps {
			checkSample(t, open(t, run.Path(step)), step)
		}
		f, err := run.Latest()
		if err != nil {
			t.Fatal(err)
		}
		checkSample(t, f, f.Manifest.Step)
		if f.Manifest.Step < saved || len(f.Skipped) > 0 {
			t.Errorf("got step %d, skipped %v, want at least %d, which was finished", f.Manifest.Step, f.Skipped, saved)
		}
		if best > 0 {
			f, err := run.Best()
			if err != nil {
				t.Fatal(err)
			}
			checkSample(t, f, f.Manifest.Step)
			if f.Manifest.Step < best {
				t.Errorf("the best is step %d, want at least %d, which was finished", f.Manifest.Step, best)
			}
		}
		for _, name := range entries(t, run.Dir+"/checkpoints") {
			if strings.HasPrefix(name, ".") {
				t.Errorf("%s was not tidied up", name)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills left %d temporary folders, all tidied up", kills, leftovers)
}
