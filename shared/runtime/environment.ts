/** The process environment, read in this one place. */
export type Environment = Readonly<Record<string, string | undefined>>

// biome-ignore lint/style/noProcessEnv: the one place that reads it
export const environment: Environment = process.env
