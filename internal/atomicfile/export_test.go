package atomicfile

// ReplaceDirInTwoSteps lets the tests take the way of systems without exchange.
var ReplaceDirInTwoSteps = replaceDirInTwoSteps
