/* Work space that threads keep from call to call. */
#include <pthread.h>

typedef struct {
    char *data;
    size_t size, used;
} Arena;

/* Memory is kept from call to call: mapping it anew costs more than a small molecule. */
static _Thread_local Arena arenas[3];
#define work_arena arenas[0]
#define gradient_arena arenas[1]
#define tile_arena arenas[2]

/* When a thread ends, its memory goes. */
static pthread_key_t arenas_key;
static pthread_once_t arenas_once = PTHREAD_ONCE_INIT;

static void free_arenas(void *own) {
    for (int i = 0; i < 3; i++) free(((Arena *)own)[i].data);
}

static void make_arenas_key(void) { pthread_key_create(&arenas_key, free_arenas); }

/* An arena this much larger than what is asked for is made anew. */
#define TOO_LARGE(size) (4 * (size) + ((size_t)256 << 20))

static void *take(Arena *arena, int64_t elements) {
    void *out = arena->data ? arena->data + arena->used : NULL;
    arena->used += ((size_t)elements * sizeof(T) + 127) & ~(size_t)63;
    return out;
}

static int reserve(Arena *arena, size_t size) {
    if (arena->size < size || arena->size > TOO_LARGE(size)) {
        free(arena->data);
        pthread_once(&arenas_once, make_arenas_key);
        pthread_setspecific(arenas_key, arenas);
        arena->data = NULL;
        arena->size = 0;
        if (posix_memalign((void **)&arena->data, 64, size + size / 4)) return 0;
        arena->size = size + size / 4;
    }
    arena->used = 0;
    return 1;
}
