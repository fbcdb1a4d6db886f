//go:build !linux

package program_test

const endsWithParent = false
