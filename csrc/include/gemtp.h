/* gemtp: Gemma 4 with its multi-token-prediction drafter, for C and everything that can call C.
 *
 * There are two main objects. A gemtp_model is an opened model: weights, tokenizer, threads; it
 * never changes, and any number of threads may use it. A gemtp_session is a text that can be
 * continued: tokens, and what the model has computed for them. Append tokens, generate, rewind,
 * fork, or save it to a file; open as many sessions of a model as its memory budget allows.
 * Sessions that generate at the same time, each on its own thread, share passes over the weights.
 *
 *   static int print(const gemtp_token* token, void* user) {
 *     (void)user;
 *     fwrite(token->text, 1, token->length, stdout);
 *     return fflush(stdout);                      // 0: go on
 *   }
 *
 *   char error[256];
 *   gemtp_model* model;
 *   gemtp_model_options options;
 *   gemtp_model_options_init(&options, sizeof options);
 *   options.drafter_path = "drafter.gguf";
 *   if (gemtp_model_open("target.gguf", &options, &model, error, sizeof error)) return fail(error);
 *
 *   gemtp_session* session;
 *   gemtp_generate_options generate;
 *   gemtp_generate_options_init(&generate, sizeof generate);
 *   generate.max_tokens = 64;
 *   generate.on_token = print;
 *   if (gemtp_session_open(model, &session, error, sizeof error) ||
 *       gemtp_session_append_text(session, "def fibonacci(n):", GEMTP_STRLEN, GEMTP_ADD_BOS, error,
 *                                 sizeof error) ||
 *       gemtp_session_generate(session, &generate, error, sizeof error))
 *     return fail(error);
 *   gemtp_session_close(session);
 *   gemtp_model_close(model);
 *
 * The text is a function of weights, tokens, options and seed, and of nothing else: the drafter,
 * its depth, the number of threads, other sessions, the way in which the tokens came into the
 * session and the instruction set change only the speed.
 *
 * Rules
 *  - Errors. Functions that can fail return a gemtp_status and, unless it is GEMTP_OK, write one
 *    sentence (what is wrong, where, what to do) to error[0 .. error_size), truncated to fit and
 *    0-terminated. error may be NULL. Outputs are untouched on failure. The library never prints,
 *    logs, aborts or exits.
 *  - Handles. For NULL, a closed handle and a handle of another kind, functions that return a
 *    status always return GEMTP_ERROR_ARGUMENT: a handle is a number that is never reused and never
 *    dereferenced. Closing returns void, and closing twice is harmless.
 *  - Threads. All functions that take a gemtp_model, and gemtp_session_cancel(), may be called from
 *    any thread at any time. A session takes one call at a time; another call meanwhile, even from
 *    one of its own callbacks, returns GEMTP_ERROR_BUSY and changes nothing.
 *  - Closing. A session keeps alive what it needs of a closed model. gemtp_session_close() may be
 *    called from any thread and from callbacks: a running call of the session ends as if cancelled.
 *  - fork(). A child may use models and sessions of its parent. But if another thread was in a call
 *    on a model or its sessions at the moment of the fork, the child's calls return
 *    GEMTP_ERROR_ARGUMENT, or _BUSY for the session of that call; the child must open the model
 *    again.
 *  - Callbacks are called on the thread of the call. They return 0 to continue and anything else to
 *    stop, and may call every function that the rules above do not exclude. They must not throw or
 *    longjmp.
 *  - Structs begin with their size, so that they can grow. The *_init() functions set it and fill
 *    in the defaults; in structs that the library fills in, set only `size`. A caller built against
 *    an older header passes a smaller struct and gets the defaults for the other fields; a caller
 *    that passes a larger struct gets GEMTP_ERROR_ARGUMENT unless all fields unknown to the library
 *    are 0. In arrays of structs the size of the first one applies to all. In a struct passed to a
 *    callback, fields past its size do not exist.
 *  - Text is UTF-8 with a length and need not end in 0; the length GEMTP_STRLEN means that it does.
 *    Paths are UTF-8 and end in 0. Arguments are copied.
 *  - Buffers. At most `capacity` items are written, and the count is always the total number, so
 *    that a call with capacity 0 returns the capacity needed.
 */
#ifndef GEMTP_H_
#define GEMTP_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(GEMTP_BUILDING)
#define GEMTP_API __declspec(dllexport)
#elif defined(_WIN32) && defined(GEMTP_SHARED)
#define GEMTP_API __declspec(dllimport)
#elif defined(__GNUC__)
#define GEMTP_API __attribute__((visibility("default")))
#else
#define GEMTP_API
#endif

/* The number in the library's name (libgemtp.so.0). While it stays the same, functions, fields and
 * values are only added, so a program runs with any library at least as new as its header. */
#define GEMTP_ABI_VERSION 0

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gemtp_model gemtp_model;
typedef struct gemtp_session gemtp_session;
typedef struct gemtp_reply gemtp_reply;

typedef enum gemtp_status {
  GEMTP_OK = 0,
  GEMTP_ERROR_FILE = 1,      /* a file that cannot be read or written, or is damaged */
  GEMTP_ERROR_MODEL = 2,     /* files that do not fit together or that this build cannot run */
  GEMTP_ERROR_ARGUMENT = 3,  /* a parameter outside its domain */
  GEMTP_ERROR_CONTEXT = 4,   /* more tokens than the context holds */
  GEMTP_ERROR_MEMORY = 5,    /* not enough memory */
  GEMTP_ERROR_INTERNAL = 6,  /* a bug in gemtp */
  GEMTP_ERROR_CANCELLED = 7, /* cancelled by gemtp_session_cancel() or the progress callback */
  GEMTP_ERROR_BUSY = 8,      /* the session is in another call */
  GEMTP_ERROR_DEVICE = 9     /* a GPU, or its driver, failed or is too old: close the model */
} gemtp_status;

#define GEMTP_STRLEN ((size_t)-1)

/* The version of the running library, e.g. "0.2.0", and its GEMTP_ABI_VERSION. */
GEMTP_API const char* gemtp_version(void);
GEMTP_API int32_t gemtp_abi_version(void);

/* ---- model ---------------------------------------------------------------------------------- */

typedef struct gemtp_model_options {
  size_t size;
  const char* drafter_path; /* NULL: no drafter; tokens are still looked up in the text */
  int64_t context;          /* tokens per session; at most the model's context length */
  int64_t prefill_chunk;    /* rows of one prefill pass; trades memory for speed */
  int64_t kv_budget;        /* bytes for the K/V of all sessions; 0: a share of free memory */
  int32_t threads;          /* 0: as many as help on this machine */
  int32_t kv_f32;           /* 0: K/V in f16 (half the memory), 1: in f32 */
  int32_t no_mmap;          /* 1: read embedding tables into memory; the files may then change */
  const char* isa;          /* NULL: environment variable GEMTP_ISA, else the best available */
  /* Called during opening with the fraction that is done, from 0 to 1. If it stops,
   * gemtp_model_open() returns GEMTP_ERROR_CANCELLED and frees everything. */
  int (*progress)(double fraction, void* user);
  void* user;
  /* The device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", "metal" (Apple's GPU), "emulated"
   * (a GPU emulated on the CPU, for tests; very slow), or "auto": a GPU if there is one on which
   * the model fits, else the CPU. It never changes the text: a GPU first proves that it gives the
   * CPU's bytes, or is refused with GEMTP_ERROR_DEVICE ("auto": left). NULL: environment variable
   * GEMTP_DEVICE, else "auto". A GPU that fails gives GEMTP_ERROR_DEVICE, then and in every later
   * call: close the model and open it again, there or on the CPU. */
  const char* device;
  /* How many layers, the last ones, lie on a GPU: a number, of which one above that of the model's
   * layers means all, or "auto": as many as fit, else their experts on the CPU. The head and the
   * drafter lie there in any case. It never changes the text. NULL: environment variable
   * GEMTP_GPU_LAYERS, else "auto". */
  const char* gpu_layers;
} gemtp_model_options;

GEMTP_API gemtp_status gemtp_model_options_init(gemtp_model_options* options, size_t size);

/* options may be NULL for the defaults. */
GEMTP_API gemtp_status gemtp_model_open(const char* target_path, const gemtp_model_options* options,
                                        gemtp_model** model, char* error, size_t error_size);
GEMTP_API void gemtp_model_close(gemtp_model* model);

typedef struct gemtp_model_info {
  size_t size;
  int64_t context;    /* tokens that a session can hold */
  int64_t kv_budget;  /* bytes */
  int32_t vocab_size; /* ids are smaller than this */
  int32_t threads;
  int32_t has_drafter;
  int32_t has_tokenizer;     /* 0: only ids can be used */
  int32_t has_chat;          /* the vocabulary has the tokens of Gemma's chat format */
  int32_t has_chat_template; /* the file contains a template, like files made for chats */
  char backend[32];          /* e.g. "cpu/avx2" */
  int32_t completes; /* made to go on with texts, not to answer messages: the file has no template,
                        or says so itself (docs/gguf.md, gemtp.completes) */
} gemtp_model_info;

GEMTP_API gemtp_status gemtp_model_describe(const gemtp_model* model, gemtp_model_info* info,
                                            char* error, size_t error_size);

typedef struct gemtp_memory { /* bytes */
  size_t size;
  int64_t weights;   /* packed weights of target and drafter */
  int64_t tables;    /* tables whose rows are read from the file */
  int64_t kv;        /* K/V of one session */
  int64_t scratch;   /* buffers of the longest pass */
  int64_t needed;    /* of these, the bytes that must be resident, with one session */
  int64_t available; /* bytes that this process may use now; 0: unknown */
  int64_t context;   /* tokens to which `kv` refers */
} gemtp_memory;

/* The memory that a model would take, estimated from its files' headers. Opening a model that needs
 * more than is available fails. */
GEMTP_API gemtp_status gemtp_memory_estimate(const char* target_path,
                                             const gemtp_model_options* options,
                                             gemtp_memory* memory, char* error, size_t error_size);

/* Drops the K/V that closed sessions have left for later sessions that begin alike. */
GEMTP_API gemtp_status gemtp_model_clear_cache(gemtp_model* model, char* error, size_t error_size);

/* ---- text ----------------------------------------------------------------------------------- */

enum {
  GEMTP_ADD_BOS = 1,      /* prepend the beginning-of-sequence token, unless present */
  GEMTP_PARSE_SPECIAL = 2 /* text that spells a control token becomes it; not for user text */
};

GEMTP_API gemtp_status gemtp_tokenize(const gemtp_model* model, const char* text, size_t length,
                                      int32_t flags, int32_t* ids, size_t capacity, size_t* count,
                                      char* error, size_t error_size);

/* Converts ids to text, without a terminating 0. */
GEMTP_API gemtp_status gemtp_detokenize(const gemtp_model* model, const int32_t* ids, size_t count,
                                        char* text, size_t capacity, size_t* length, char* error,
                                        size_t error_size);

typedef struct gemtp_message {
  size_t size;
  const char* role; /* "system", "user" or "assistant" */
  const char* text;
  size_t length;
} gemtp_message;

typedef struct gemtp_chat_options {
  size_t size;
  int32_t thinking;             /* 1: the model may think before it answers */
  int32_t no_generation_prompt; /* 1: do not append the beginning of the model's turn */
} gemtp_chat_options;

GEMTP_API gemtp_status gemtp_chat_options_init(gemtp_chat_options* options, size_t size);

/* Converts a conversation to ids in Gemma 4's chat format. The format is built in: a template in
 * the model file is ignored. Control tokens that a message spells stay text. Messages must not
 * contain the thoughts of earlier answers. options may be NULL. */
GEMTP_API gemtp_status gemtp_chat_tokens(const gemtp_model* model, const gemtp_message* messages,
                                         size_t message_count, const gemtp_chat_options* options,
                                         int32_t* ids, size_t capacity, size_t* count, char* error,
                                         size_t error_size);

/* ---- session -------------------------------------------------------------------------------- */

/* Opens an empty session. Its K/V is taken from the model's budget when it first generates. If the
 * sessions in use leave too little memory, that call returns GEMTP_ERROR_MEMORY; see
 * gemtp_generate_options.wait. */
GEMTP_API gemtp_status gemtp_session_open(gemtp_model* model, gemtp_session** session, char* error,
                                          size_t error_size);
GEMTP_API void gemtp_session_close(gemtp_session* session);

/* Append tokens, or the tokens of a text. They end a generation begun by gemtp_session_begin(). */
GEMTP_API gemtp_status gemtp_session_append(gemtp_session* session, const int32_t* ids,
                                            size_t count, char* error, size_t error_size);
GEMTP_API gemtp_status gemtp_session_append_text(gemtp_session* session, const char* text,
                                                 size_t length, int32_t flags, char* error,
                                                 size_t error_size);

/* Replaces the session's tokens by ids. A common beginning with the previous tokens is not computed
 * again, so in a conversation pass gemtp_chat_tokens() of the whole conversation at every turn. */
GEMTP_API gemtp_status gemtp_session_assign(gemtp_session* session, const int32_t* ids,
                                            size_t count, char* error, size_t error_size);

/* Returns all tokens, both appended and generated. */
GEMTP_API gemtp_status gemtp_session_tokens(gemtp_session* session, int32_t* ids, size_t capacity,
                                            size_t* count, char* error, size_t error_size);

/* Keeps the first `length` tokens. */
GEMTP_API gemtp_status gemtp_session_rewind(gemtp_session* session, int64_t length, char* error,
                                            size_t error_size);

/* Makes a second session with the same tokens and K/V. Between two steps, the fork contains the
 * tokens emitted so far. */
GEMTP_API gemtp_status gemtp_session_fork(gemtp_session* session, gemtp_session** fork, char* error,
                                          size_t error_size);

/* Save tokens and K/V to a file and restore them. A file can be restored only with the same target
 * and kv_f32: a file of another model gives GEMTP_ERROR_MODEL, a damaged or truncated file
 * GEMTP_ERROR_FILE. A file appears complete, replacing an earlier one, or not at all. Only its
 * owner may read it, because it contains the text. Links are followed; a folder, pipe or device
 * gives GEMTP_ERROR_FILE. */
GEMTP_API gemtp_status gemtp_session_save(gemtp_session* session, const char* path, char* error,
                                          size_t error_size);
GEMTP_API gemtp_status gemtp_session_restore(gemtp_model* model, const char* path,
                                             gemtp_session** session, char* error,
                                             size_t error_size);

/* ---- generate ------------------------------------------------------------------------------- */

typedef enum gemtp_source {
  GEMTP_SOURCE_TARGET = 0, /* not drafted */
  GEMTP_SOURCE_DRAFTER = 1,
  GEMTP_SOURCE_LOOKUP = 2, /* found earlier in the text */
  GEMTP_SOURCE_GRAMMAR = 3 /* the only token that a constraint allowed */
} gemtp_source;

typedef struct gemtp_logprob { /* this struct never grows */
  double logprob;
  int32_t id;
} gemtp_logprob;

typedef struct gemtp_token {
  size_t size;
  const char* text; /* text completed by the token: whole characters, possibly none, without text
                       that may yet become a stop string */
  size_t length;
  int32_t id;     /* -1: no token, only text held back until the end */
  int32_t source; /* gemtp_source of the token */
  int32_t depth;  /* index of the draft in its round, from 1; 0: not drafted */
  /* If requested (otherwise NaN and none): the natural logarithm of the token's probability in the
   * model's distribution, at temperature 1 before penalties, biases and filters; and the likeliest
   * tokens in its place, likeliest first. */
  double logprob;
  const gemtp_logprob* top;
  size_t top_count;
} gemtp_token;

typedef struct gemtp_logit_bias {
  int32_t id;
  float bias; /* added to the logit; -INFINITY bans the token */
} gemtp_logit_bias;

/* A constraint on the generated tokens. It holds the state of one text, which moves forward and,
 * after wrong drafts, back. `user` belongs to one generation, until the session begins another or
 * is closed. The functions are called one at a time, on the same threads as on_logits. Those that
 * return int as a status return 0; any other value ends the generation as cancelled. The tokens are
 * the same with and without drafts. */
typedef struct gemtp_constraint {
  size_t size;
  /* push appends tokens that are allowed next; pop removes the latest n tokens. */
  int (*push)(const int32_t* ids, size_t n, void* user);
  int (*pop)(size_t n, void* user);
  /* Sets the bits of the tokens allowed next: bit id % 32 of word id / 32. All n words are
   * initially 0. End tokens are allowed where the text may end. */
  int (*mask)(uint32_t* words, size_t n, void* user);
  /* May be NULL. Writes the next tokens that are the only ones possible, at most `capacity`, and
   * returns their number. They are verified like drafts, but cost nothing to make. */
  size_t (*forced)(int32_t* ids, size_t capacity, void* user);
  /* May be NULL. Returns 1 if only an end token is allowed next; then the generation ends with
   * GEMTP_FINISH_STOP. */
  int (*complete)(void* user);
  void* user;
} gemtp_constraint;

enum { GEMTP_DRAFT_AUTO = -1 };

#define GEMTP_RANDOM_SEED UINT64_MAX

typedef struct gemtp_generate_options {
  size_t size;
  int64_t max_tokens;       /* -1: as many as the context holds */
  uint64_t seed;            /* GEMTP_RANDOM_SEED: a random one, reported in gemtp_stats */
  float temperature;        /* 0: greedy */
  int32_t top_k;            /* 0 or -1: off */
  float top_p;              /* 1: off; 0: only the likeliest token */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 1: off */
  float presence_penalty;
  float frequency_penalty;
  int32_t penalty_last_n;  /* latest tokens that penalties consider; -1: all */
  int32_t draft;           /* drafts per round: GEMTP_DRAFT_AUTO (what pays off), 0 (off) to 15 */
  int32_t ignore_eos;      /* 1: continue after an end token */
  int32_t logprobs;        /* 0: of each token; 1 to 20: also of so many likeliest; -1: none */
  const char* const* stop; /* 0-terminated strings that end the text and are not part of it; empty
                              strings are ignored */
  size_t stop_count;
  const gemtp_logit_bias* logit_bias;
  size_t logit_bias_count;
  /* Each callback may be NULL; only gemtp_session_generate() calls on_token and on_prompt. The
   * token and its text are valid until on_token returns; if it stops, the session ends with that
   * token. on_prompt reports the progress of the prompt. */
  int (*on_token)(const gemtp_token* token, void* user);
  int (*on_prompt)(int64_t done, int64_t total, void* user);
  /* Changes the logits from which the next token is chosen, before all other steps; ids are all
   * tokens so far. The text stays a function of the options only if this function depends on
   * nothing but its arguments. It is called on the thread of the session that runs the shared pass,
   * which waits for it; it must not call functions that generate. If it stops, the call returns
   * GEMTP_ERROR_CANCELLED. */
  int (*on_logits)(const int32_t* ids, size_t count, float* logits, size_t vocab_size, void* user);
  void* user;
  const gemtp_constraint* constraint; /* NULL: none */
  /* 1: if other sessions leave no K/V memory for this one, wait, in order of arrival, until a
   * session that also has wait = 1 is closed. Only such sessions are waited for, so each of them
   * must be closed soon. The call returns GEMTP_ERROR_MEMORY if none of them is left;
   * gemtp_session_cancel() ends the wait. 0: return GEMTP_ERROR_MEMORY at once. */
  int32_t wait;
} gemtp_generate_options;

GEMTP_API gemtp_status gemtp_generate_options_init(gemtp_generate_options* options, size_t size);

/* Sets the sampling options that the model's file recommends for chats (keys general.sampling.*);
 * options that the file does not mention stay unchanged. Without this call, decoding is greedy. */
GEMTP_API gemtp_status gemtp_model_sampling(const gemtp_model* model,
                                            gemtp_generate_options* options, char* error,
                                            size_t error_size);

/* Generates after the tokens of the session, of which there must be at least one. Generated tokens,
 * except an end token, become part of the session. Also returns GEMTP_OK if a callback stopped it.
 * options may be NULL. */
GEMTP_API gemtp_status gemtp_session_generate(gemtp_session* session,
                                              const gemtp_generate_options* options, char* error,
                                              size_t error_size);

/* Ends the generation that is under way within milliseconds, even in the middle of a prompt. The
 * running call, or the next step, returns GEMTP_ERROR_CANCELLED. Emitted tokens stay, and the
 * session remains usable. If no generation is under way, nothing happens. */
GEMTP_API gemtp_status gemtp_session_cancel(gemtp_session* session, char* error, size_t error_size);

typedef enum gemtp_finish {
  GEMTP_UNFINISHED = 0,      /* under way, or not begun */
  GEMTP_FINISH_STOP = 1,     /* an end token or a stop string */
  GEMTP_FINISH_LENGTH = 2,   /* max_tokens */
  GEMTP_FINISH_CONTEXT = 3,  /* the context is full */
  GEMTP_FINISH_CANCELLED = 4 /* gemtp_session_cancel(), or a callback */
} gemtp_finish;

/* The same step by step, without those two callbacks: call begin, then step until *finish is not
 * GEMTP_UNFINISHED. A step is one chunk of the prompt or one draft-verify round; *count is the
 * number of its tokens, which gemtp_session_emitted() returns one by one. Their text is valid until
 * the session's next step, begin or close. */
GEMTP_API gemtp_status gemtp_session_begin(gemtp_session* session,
                                           const gemtp_generate_options* options, char* error,
                                           size_t error_size);
GEMTP_API gemtp_status gemtp_session_step(gemtp_session* session, size_t* count,
                                          gemtp_finish* finish, char* error, size_t error_size);
GEMTP_API gemtp_status gemtp_session_emitted(gemtp_session* session, size_t index,
                                             gemtp_token* token, char* error, size_t error_size);

typedef struct gemtp_stats { /* of the latest generation */
  size_t size;
  int32_t finish;                            /* gemtp_finish */
  int64_t rounds;                            /* verify passes */
  int64_t drafted;                           /* drafts verified */
  int64_t accepted;                          /* drafts that became tokens */
  int64_t lookup_drafted, lookup_accepted;   /* those looked up in the text */
  int64_t grammar_drafted, grammar_accepted; /* those forced by a constraint */
  int64_t prompt_tokens;
  int64_t cached_tokens; /* prompt tokens whose K/V existed already */
  int64_t prompt_done;   /* prompt tokens done, including cached ones */
  int64_t tokens;        /* generated */
  double prompt_seconds; /* time until the first token */
  double decode_seconds; /* time after it */
  double tokens_per_second;
  int64_t depth_histogram[16]; /* [k]: rounds that drafted k tokens */
  uint64_t seed;               /* the same seed, tokens and options give the same text */
} gemtp_stats;

GEMTP_API gemtp_status gemtp_session_stats(gemtp_session* session, gemtp_stats* stats, char* error,
                                           size_t error_size);

/* ---- replies -------------------------------------------------------------------------------- */

/* The parts of a model's reply in a chat, separated while it is generated. */
typedef enum gemtp_part {
  GEMTP_PART_CONTENT = 0, /* text of the answer */
  GEMTP_PART_THINKING = 1,
  GEMTP_PART_TOOL_CALL = 2,     /* a complete call, and its text */
  GEMTP_PART_MALFORMED_CALL = 3 /* the text of a call that cannot be read */
} gemtp_part;

typedef struct gemtp_reply_event {
  size_t size;
  int32_t part; /* gemtp_part */
  const char* text;
  size_t length;
  const char* tool_name;      /* for GEMTP_PART_TOOL_CALL, else NULL; 0-terminated */
  const char* arguments_json; /* likewise; a JSON object */
} gemtp_reply_event;

typedef int (*gemtp_reply_callback)(const gemtp_reply_event* event, void* user);

/* Opens a parser for the reply to ids[0 .. count), which may have opened a thought. Stop strings
 * end the answer, but not thoughts and calls, so do not set them in gemtp_generate_options. */
GEMTP_API gemtp_status gemtp_reply_open(const gemtp_model* model, const int32_t* ids, size_t count,
                                        const char* const* stop, size_t stop_count,
                                        gemtp_reply** reply, char* error, size_t error_size);
/* Adds a token (a negative id is ignored) and reports the events that it completes. *stopped,
 * unless stopped is NULL, becomes 1 if a stop string has ended the answer or the callback stops,
 * else 0. */
GEMTP_API gemtp_status gemtp_reply_push(gemtp_reply* reply, int32_t id,
                                        gemtp_reply_callback on_event, void* user, int32_t* stopped,
                                        char* error, size_t error_size);
/* Ends the reply and reports the remaining events. An unfinished call is reported as malformed. */
GEMTP_API gemtp_status gemtp_reply_finish(gemtp_reply* reply, gemtp_reply_callback on_event,
                                          void* user, char* error, size_t error_size);
GEMTP_API void gemtp_reply_close(gemtp_reply* reply);

#ifdef __cplusplus
}
#endif

#endif /* GEMTP_H_ */
