package optim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/elastic-attention/workbench/internal/kind"
	"github.com/elastic-attention/workbench/internal/strictjson"
)

// Config is a rule with parameter groups. In JSON it is the rule's object with the fields "groups"
// and "layer_decay" beside the rule's own; an object without "kind" is AdamW.
type Config struct {
	// Rule is the update rule; nil means [AdamW] without weight decay.
	Rule Rule
	// Groups say what differs for some parameters. Of several that match a parameter the first
	// counts.
	Groups []Group
	// LayerDecay multiplies the learning rate once for each layer that lies above a parameter, so
	// that lower layers learn more slowly: LayerDecayⁿ for n layers above, of which all that is in no
	// layer, the head, is the last, and embeddings lie below layer 0. 0 means 1.
	// Source: Howard, Ruder 2018, "Universal language model fine-tuning for text classification".
	LayerDecay float64
}

// Group says what differs for some parameters.
type Group struct {
	// Variables are patterns of paths, in which * stands for any text.
	Variables []string `json:"variables"`
	// Rank restricts the group to tensors of that many axes; nil means any.
	Rank *int `json:"rank,omitempty"`
	// Rate multiplies the learning rate; 0 means 1. To freeze parameters is a strategy's, see
	// package adapt.
	Rate float64 `json:"rate,omitempty"`
	// WeightDecay is used in place of the rule's; nil means the rule's, for parameters that decay.
	WeightDecay *float64 `json:"weight_decay,omitempty"`
	// Rule is used in place of the config's.
	Rule Rule `json:"rule,omitempty"`
}

func (c Config) rule() Rule {
	if c.Rule == nil {
		return AdamW{}
	}
	return c.Rule
}

// Validate reports all that is wrong with c, apart from what only parameters show.
func (c Config) Validate() error {
	problems := []error{prefix("optimizer.", c.rule().Validate())}
	if !(c.LayerDecay >= 0 && c.LayerDecay <= 1) {
		problems = append(problems, fmt.Errorf("optimizer.layer_decay is %g, want 0 < d ≤ 1", c.LayerDecay))
	}
	for i, g := range c.Groups {
		path := fmt.Sprintf("optimizer.groups[%d]", i)
		if len(g.Variables) == 0 {
			problems = append(problems, fmt.Errorf("%s.variables is empty, want patterns of paths", path))
		}
		var c check
		c.positive(path+".rate", g.Rate)
		if g.WeightDecay != nil {
			c.decay(path+".weight_decay", *g.WeightDecay)
		}
		problems = append(problems, c...)
		if g.Rule != nil {
			problems = append(problems, prefix(path+".rule.", g.Rule.Validate()))
		}
	}
	return errors.Join(problems...)
}

// prefix puts a path before each of the joined problems.
func prefix(path string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var problems []error
		for _, problem := range joined.Unwrap() {
			problems = append(problems, prefix(path, problem))
		}
		return errors.Join(problems...)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s%w", path, err)
}

// MarshalJSON writes the rule's object with groups and layer decay.
func (c Config) MarshalJSON() ([]byte, error) {
	raw, err := kind.Object(c.rule())
	if err != nil {
		return nil, err
	}
	rest, err := json.Marshal(struct {
		LayerDecay float64 `json:"layer_decay,omitempty"`
		Groups     []Group `json:"groups,omitempty"`
	}{c.LayerDecay, c.Groups})
	if err != nil {
		return nil, err
	}
	if string(rest) != "{}" {
		raw = append(append(raw[:len(raw)-1], ','), rest[1:]...)
	}
	return raw, nil
}

// UnmarshalJSON reads a rule's name, or its object with groups and layer decay.
func (c *Config) UnmarshalJSON(data []byte) error {
	*c = Config{}
	var object map[string]json.RawMessage
	var err error
	if json.Unmarshal(data, &object) == nil {
		if raw, ok := object["layer_decay"]; ok {
			if err := strictjson.DecodeKnown(raw, &c.LayerDecay); err != nil {
				return fmt.Errorf("optimizer.layer_decay: %w", err)
			}
		}
		if raw, ok := object["groups"]; ok {
			if c.Groups, err = readGroups(raw); err != nil {
				return err
			}
		}
		rest := maps.Clone(object)
		delete(rest, "layer_decay")
		delete(rest, "groups")
		if data, err = json.Marshal(rest); err != nil {
			return err
		}
	}
	c.Rule, err = kind.Read[Rule](&registry, data, "optimizer", AdamW{}.Kind())
	return err
}

func readGroups(raw json.RawMessage) ([]Group, error) {
	var list []json.RawMessage
	if err := strictjson.DecodeKnown(raw, &list); err != nil {
		return nil, fmt.Errorf("optimizer.groups: %w", err)
	}
	var groups []Group
	for i, raw := range list {
		path := fmt.Sprintf("optimizer.groups[%d]", i)
		var fields map[string]json.RawMessage
		if err := strictjson.DecodeKnown(raw, &fields); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		rule := fields["rule"]
		delete(fields, "rule")
		var group Group
		if err := strict(fields, &group); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if rule != nil {
			var err error
			if group.Rule, err = kind.Read[Rule](&registry, rule, path+".rule", ""); err != nil {
				return nil, err
			}
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// MarshalJSON writes the group with its rule's kind.
func (g Group) MarshalJSON() ([]byte, error) {
	type plain Group // without this method
	other := struct {
		plain
		Rule json.RawMessage `json:"rule,omitempty"`
	}{plain: plain(g)}
	if g.Rule != nil {
		var err error
		if other.Rule, err = kind.Write(g.Rule); err != nil {
			return nil, err
		}
	}
	return json.Marshal(other)
}

// Chain is rules one after the other; the last one's updates move the parameters. In JSON it is
// {"kind": "chain", "of": [...]}.
type Chain []Rule

// Kind returns "chain".
func (Chain) Kind() string { return "chain" }

// Chain returns c.
func (c Chain) Chain() Chain { return c }

// Validate reports the problems of all links.
func (c Chain) Validate() error {
	var problems []error
	if len(c) == 0 {
		problems = append(problems, errors.New("of is empty, want at least one rule"))
	}
	for i, r := range c {
		if r == nil {
			problems = append(problems, fmt.Errorf("of[%d] is nil, want a rule", i))
			continue
		}
		problems = append(problems, prefix(fmt.Sprintf("of[%d].", i), r.Validate()))
	}
	return errors.Join(problems...)
}

// MarshalJSON writes the links with their kinds.
func (c Chain) MarshalJSON() ([]byte, error) {
	var links struct {
		Of []json.RawMessage `json:"of"`
	}
	for _, r := range c {
		raw, err := kind.Write(r)
		if err != nil {
			return nil, err
		}
		links.Of = append(links.Of, raw)
	}
	return json.Marshal(links)
}

// UnmarshalJSON reads the links.
func (c *Chain) UnmarshalJSON(data []byte) error {
	var links struct {
		Of []json.RawMessage `json:"of"`
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	if err := strict(fields, &links); err != nil {
		return err
	}
	*c = nil
	for i, raw := range links.Of {
		r, err := kind.Read[Rule](&registry, raw, fmt.Sprintf("of[%d]", i), "")
		if err != nil {
			return err
		}
		*c = append(*c, r)
	}
	return nil
}

// transforms returns a rule's links, presets taken apart.
func transforms(r Rule) ([]Transform, error) {
	if t, ok := r.(Transform); ok {
		return []Transform{t}, nil
	}
	preset, ok := r.(Preset)
	if !ok {
		return nil, fmt.Errorf("optimizer: rule %q is neither a Transform nor a Preset", r.Kind())
	}
	var all []Transform
	for _, link := range preset.Chain() {
		links, err := transforms(link)
		if err != nil {
			return nil, err
		}
		all = append(all, links...)
	}
	return all, nil
}

// strict decodes fields into a struct; unknown ones are errors.
func strict(fields map[string]json.RawMessage, into any) error {
	raw, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return strictjson.Decode(raw, into)
}
