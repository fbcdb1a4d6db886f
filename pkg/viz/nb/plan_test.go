package nb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/memo"
	ipynb "github.com/elastic-attention/workbench/pkg/nb"
)

func TestParam(t *testing.T) {
	t.Setenv("NB_STEPS", "20")
	t.Setenv("NB_RATE", "2e-4")
	t.Setenv("NB_NAME", "20")
	t.Setenv("NB_EMPTY", "")
	if v, err := Param("STEPS", 140); v != 20 || err != nil {
		t.Errorf("STEPS = %v, %v, want 20", v, err)
	}
	if v, err := Param("RATE", 1.0); v != 2e-4 || err != nil {
		t.Errorf("RATE = %v, %v, want 2e-4", v, err)
	}
	if v, err := Param("NAME", "x"); v != "20" || err != nil {
		t.Errorf("NAME = %q, %v, want 20", v, err)
	}
	if v, err := Param("EMPTY", true); !v || err != nil {
		t.Errorf("EMPTY = %v, %v, want the default", v, err)
	}
	if v, err := Param("ABSENT", 7); v != 7 || err != nil {
		t.Errorf("ABSENT = %v, %v, want the default", v, err)
	}
	for _, bad := range []string{"1.5", "12x", "many", "-1"} {
		t.Setenv("NB_STEPS", bad)
		if _, err := Param("STEPS", uint(140)); err == nil || !strings.Contains(err.Error(), "NB_STEPS=\""+bad+"\", want a value like 140 (uint)") {
			t.Errorf("STEPS=%s: error %v", bad, err)
		}
	}
}

func TestFolder(t *testing.T) {
	base := t.TempDir()
	t.Setenv("GONB_TMP_DIR", base)
	for range 2 { // it may be there already
		dir, err := Folder("run-1/model")
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() || !strings.HasPrefix(dir, base) {
			t.Errorf("folder %s: %v", dir, err)
		}
	}
	if dir, err := Folder("../x"); err == nil {
		t.Errorf("folder %s lies outside", dir)
	}
}

func TestCache(t *testing.T) {
	home, kernel := t.TempDir(), t.TempDir()
	t.Setenv("ELASTIC_CACHE_DIR", home)
	t.Setenv("GONB_TMP_DIR", kernel)
	calls := 0
	get := func() {
		t.Helper()
		if v, err := memo.Of(t.Context(), Cache(), "n", nil, func() (int, error) { calls++; return 5, nil }); v != 5 || err != nil {
			t.Error(v, err)
		}
	}
	t.Setenv(HeadlessEnv, "1")
	if Cache().Tell != nil {
		t.Error("a headless notebook would have outputs that differ")
	}
	get()
	get()
	t.Setenv("GONB_TMP_DIR", t.TempDir()) // another kernel
	get()
	if calls != 2 {
		t.Errorf("headless, two kernels: computed %d times, want twice", calls)
	}
	t.Setenv(HeadlessEnv, "")
	get()
	t.Setenv("GONB_TMP_DIR", t.TempDir())
	get()
	if calls != 3 {
		t.Errorf("in a browser, two kernels: computed %d times more, want once", calls-2)
	}
}

func TestReadPlan(t *testing.T) {
	t.Setenv(HeadlessEnv, "")
	path := filepath.Join(t.TempDir(), "a.ipynb")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const file = `{"metadata": %s, "nbformat": 4, "nbformat_minor": 5, "cells": []}`
	write(fmt.Sprintf(file, `{"workbench": {"expect": {"f1": [0.5, 0.05]}, "budget": 600, "measured": {"seconds": 90, "backend": "xla", "cores": 2}}}`))
	got, err := ReadPlan(path)
	if err != nil {
		t.Fatal(err)
	}
	want := ipynb.Plan{Expect: map[string][2]float64{"f1": {0.5, 0.05}}, Budget: 600, Measured: &ipynb.Measured{Seconds: 90, Backend: "xla", Cores: 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	t.Setenv(HeadlessEnv, "1")
	if got, err = ReadPlan(path); err != nil || got.Measured != nil || got.Budget != 600 {
		t.Errorf("for a runner: plan %+v, error %v, want nothing of the execution before", got, err)
	}
	for _, bad := range []string{`{`, fmt.Sprintf(file, `{"workbench": {"expect": 3}}`)} {
		write(bad)
		if _, err := ReadPlan(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one with the path", bad, err)
		}
	}
	if _, err := ReadPlan(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want that there is no file", err)
	}
}
