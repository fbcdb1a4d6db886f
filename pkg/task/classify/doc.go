// Package classify says which of some classes a text belongs to: what a customer asks for,
// how a headline sounds.
//
//	text ─ tokenizer ─ encoder ─ pooling ─ tanh(W·h+b) ─ logits ─ softmax ─ Prediction
//	                                                         └── Evaluate ─ eval.Classification
//
// A [Classifier] is a transformer with a head of kind transformer.Sequence; [Config].Pooling
// says how the head makes one vector h of a text's tokens: the first token's, their mean, or
// attention pooling by a learned vector w, the theory that the project grew from. [New] makes
// one of a pretrained encoder, [Classifier.Train] fits it to labelled texts,
// [Classifier.Evaluate] scores it, [Classifier.Predict] uses it, [Classifier.Explain] says
// which words speak for a prediction, and [Classifier.Adapt] gives a copy that adapts to the
// texts that it reads, without labels.
//
// A text that has more tokens than the model takes is cut off behind the last that fits.
// Package experiment below has a whole run as one call.
package classify
