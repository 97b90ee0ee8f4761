/* Work space that threads keep from call to call. */
typedef struct {
    char *data;
    size_t size, used;
} Arena;

/* Memory is kept from call to call: mapping it anew costs more than a small molecule. */
static _Thread_local Arena work_arena, gradient_arena;

static void *take(Arena *arena, int64_t elements) {
    void *out = arena->data ? arena->data + arena->used : NULL;
    arena->used += ((size_t)elements * sizeof(T) + 127) & ~(size_t)63;
    return out;
}

static int reserve(Arena *arena, size_t size) {
    if (arena->size < size) {
        free(arena->data);
        arena->data = NULL;
        arena->size = 0;
        if (posix_memalign((void **)&arena->data, 64, size + size / 4)) return 0;
        arena->size = size + size / 4;
    }
    arena->used = 0;
    return 1;
}
