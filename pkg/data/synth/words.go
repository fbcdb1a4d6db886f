package synth

// The tables from which sentences are made. They are part of the format: see the
// package comment before changing one.

// templates are sentences with slots. Each slot's type can be told from the words
// around it, often only from those behind it or some way off.
var templates = []string{
	// One entity.
	"{PER} said that the {NOUN} was {ADJ} .",
	"{PER} laughed and closed the {NOUN} .",
	"yesterday {PER} was born in a {ADJ} house .",
	"her brother {PER} still sings on {DAY} .",
	"his mother , {PER} , bought a {ADJ} {NOUN} .",
	"my friend {PER} never liked the {NOUN} .",
	"we asked {PER} about his {NOUN} .",
	"{PER} , aged {NUM} , won the {NOUN} on {DAY} .",
	"{PER} has two sisters and a {ADJ} dog .",
	"the {NOUN} was written by {PER} in his youth .",
	"thank you , {PER} , for the {ADJ} {NOUN} !",
	"is {PER} coming to dinner with his wife ?",
	"{ORG} said that profits were {ADJ} .",
	"{ORG} laid off {NUM} workers on {DAY} .",
	"shares in {ORG} fell by {NUM} percent .",
	"the board of {ORG} met on {DAY} .",
	"she works for {ORG} as a {ADJ} engineer .",
	"customers of {ORG} want their money back .",
	"{ORG} , which makes the {NOUN} , lost {NUM} million .",
	"the company {ORG} sells a {ADJ} {NOUN} .",
	"lawyers sued {ORG} over the {NOUN} .",
	"{ORG} 's share price rose by {NUM} percent .",
	"the trade union at {ORG} called a strike .",
	"investors bought {ORG} before {DAY} .",
	"rain in {LOC} fell for {NUM} days .",
	"the road to {LOC} was {ADJ} .",
	"{LOC} lies {NUM} miles from the sea .",
	"{LOC} has {NUM} inhabitants and a {ADJ} harbour .",
	"the mayor of {LOC} opened the {NOUN} .",
	"they spent the summer near {LOC} .",
	"the climate of {LOC} is {ADJ} in winter .",
	"a train to {LOC} leaves at {NUM} .",
	"the streets of {LOC} were flooded on {DAY} .",
	"{LOC} , which lies in the north , had snow .",
	"how far is {LOC} from here ?",
	"tourists like {LOC} and its {ADJ} beaches .",
	// Several entities.
	"{PER} moved from {LOC} to {LOC} .",
	"{PER} was hired by {ORG} on {DAY} .",
	"{PER} flew to {LOC} with {PER} .",
	"{PER} married {PER} in {LOC} .",
	"{ORG} hired {PER} as its new director .",
	"{ORG} bought {ORG} for {NUM} million .",
	"{ORG} will open a {NOUN} in {LOC} .",
	"{ORG} , based in {LOC} , makes a {ADJ} {NOUN} .",
	"{PER} , who lives in {LOC} , joined {ORG} .",
	"{PER} , founder of {ORG} , went to school with {PER} .",
	"{LOC} , where {PER} was born , lies near {LOC} .",
	"the river between {LOC} and {LOC} is {ADJ} .",
	"according to {PER} , shares in {ORG} are {ADJ} .",
	"a spokesman for {ORG} met {PER} in {LOC} on {DAY} .",
	"both {PER} and {PER} wrote a {NOUN} about {LOC} .",
	"both {ORG} and {ORG} lost money in {LOC} .",
	"police in {LOC} arrested {PER} .",
	"workers of {ORG} in {LOC} went on strike on {DAY} .",
	"the bridge was built by {ORG} near {LOC} in {NUM} .",
	"{PER} sold his shares in {ORG} and left {LOC} .",
	"when {PER} died , {ORG} named a {NOUN} after him .",
	"{PER} told {PER} that {ORG} had no money .",
	"from {LOC} , {PER} wrote to his wife on {DAY} .",
	// Not enough to tell the type of a bare name.
	"everyone talks about {ANY} .",
	"{ANY} was in the news on {DAY} .",
	"I have never heard of {ANY} .",
	"who or what is {ANY} ?",
	// None.
	"the {NOUN} was {ADJ} on {DAY} .",
	"a {ADJ} {NOUN} costs {NUM} a week .",
	"nobody has seen the {NOUN} since {DAY} .",
	"please send the {NOUN} before {DAY} .",
	"it was a {ADJ} day , said the {NOUN} .",
	"why is the {NOUN} so {ADJ} ?",
	// Capitalised names of things.
	"the old {THING} engine was {ADJ} .",
	"a new {THING} engine costs {NUM} .",
	"she suffers from {THING} disease .",
	"the {THING} theorem is {ADJ} , said {PER} .",
	"{ORG} sells the {THING} engine in {LOC} .",
	"{PER} repaired the {THING} engine on {DAY} .",
}

// openers begin a sentence, joins tie two together, insertions stand behind a name.
var (
	openers = []string{
		"on {DAY} ,", "last week ,", "as expected ,", "in short ,", "at {NUM} ,", "to everyone 's surprise ,", "and so",
	}
	joins      = []string{", and", ", but", "while", "because", ";", "although"}
	insertions = []string{", it seems ,", ", of course ,", "( {NUM} )", ", however ,", "again", "itself , they say ,"}
)

var (
	days = []string{
		"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
		"January", "March", "April", "June", "August", "October", "December",
	}
	numbers    = []string{"two", "three", "five", "nine", "twelve", "20", "35", "48", "100", "250", "1890", "1957", "2004"}
	adjectives = []string{
		"big", "small", "old", "new", "cold", "warm", "quiet", "bright", "broken", "cheap", "strange", "famous",
		"empty", "heavy", "narrow", "green", "better", "worse", "lovely", "dull",
	}
	nouns = []string{
		"house", "letter", "garden", "machine", "report", "meeting", "film", "book", "market", "school", "prize",
		"kitchen", "window", "concert", "plan", "horse", "carpet", "camera", "soup", "painting", "ticket", "phone",
		"festival", "library",
	}
	addresses    = []string{"Mr.", "Mrs.", "Dr.", "Professor", "Judge", "Captain"}
	particles    = []string{"van", "de", "von", "al"}
	firms        = []string{"Corp", "Bank", "Group", "Motors", "Airlines", "Press", "Oil", "Systems", "Ltd"}
	institutions = []string{"University", "Bank", "Museum", "Academy", "Orchestra"}
	placeEndings = []string{"ville", "ford", "burg", "mouth", "field", "stadt"}
	placeFirst   = []string{"New", "Port", "Lake", "North", "South", "Mount"}
	placeLast    = []string{"City", "Valley", "Island", "Hills", "Bay"}
)

// Syllables of made-up names: opening ones may repeat, then one closes the name.
var (
	opening = []string{
		"ba", "be", "bo", "bra", "da", "de", "do", "dra", "fa", "fe", "fo", "ga", "go", "gra", "ha", "he", "ja", "jo",
		"ka", "ke", "kla", "ko", "kri", "la", "le", "lo", "lu", "ma", "me", "mi", "mo", "na", "ne", "no", "o", "pa",
		"pe", "po", "ra", "re", "ri", "ro", "sa", "se", "sko", "so", "sta", "su", "ta", "te", "to", "tre", "va", "ve",
		"vi", "vo", "wa", "we", "ya", "ze",
	}
	closing = []string{
		"bek", "ber", "dan", "dek", "den", "dor", "gan", "gel", "kas", "ken", "kin", "lan", "lik", "lin", "lor", "mak",
		"men", "mer", "mik", "nel", "ner", "nik", "nor", "pek", "rad", "ran", "rek", "ren", "rik", "ros", "san", "sen",
		"sik", "son", "tak", "tan", "tek", "ten", "tor", "van", "vel", "ven", "vik", "zan", "zel", "zen",
	}
	endings = []string{"la", "li", "ma", "mi", "na", "ni", "no", "ra", "ri", "ro", "sa", "ta", "ti", "va", "ya"}
)
