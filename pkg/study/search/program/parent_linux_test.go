package program_test

// endsWithParent: the system ends a program with the process that started it.
const endsWithParent = true
