/** Which recipe a new job has, and the recipe's own settings. */
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { get } from "./api";
import type { Recipe } from "./contract";
import { idOf } from "./errors";
import { Fields } from "./field";
import { useSettled } from "./parts";
import { inner, isData, type Data, type Node } from "./schema";

interface Props {
  node: Node;
  recipes: Recipe[];
  value: Data;
  onChange: (value: Data) => void;
}

const OWN = "package.module:Class";
const CLASS = /^\w+(\.\w+)*:\w+$/;

export function RecipeFields({ node, recipes, value, onChange }: Props): ReactNode {
  const name = String(value.name ?? "");
  const listed = recipes.find((recipe) => recipe.name === name);
  const own = useOwn(name, Array.isArray(value.py_modules) ? value.py_modules.map(String) : [], !listed);
  const known = listed ?? own;
  const config = isData(value.config) ? value.config : {};
  const change = (changed: unknown): void => onChange(changed as Data);
  const settings = known && inner(known.config_schema, known.config_schema);
  const stray = Object.keys(config).some((key) => !(key in (settings?.schema.properties ?? {})));
  return (
    <fieldset className="group" id={idOf("/recipe")} tabIndex={-1}>
      <legend>recipe</legend>
      <span className="help">{known?.summary ?? "A class of your own, importable on the nodes or brought along."}</span>
      <div className="grid">
        <RecipeChoice recipes={recipes} known={listed} onChoose={(chosen) => onChange({ name: chosen })} />
        {!listed && <Fields node={node} names={["name"]} pointer="/recipe" value={value} onChange={change} />}
        {settings && (
          <Fields
            key={name}
            node={settings}
            pointer="/recipe/config"
            value={config}
            onChange={(changed) => onChange({ ...value, config: changed })}
          />
        )}
        {!listed && (stray || !settings) && (
          <Fields node={node} names={["config"]} pointer="/recipe" value={value} onChange={change} />
        )}
        <Fields node={node} names={["py_modules"]} pointer="/recipe" value={value} onChange={change} />
      </div>
    </fieldset>
  );
}

/** A class of the user's, where the service can import it: that runs its code, as a preview of the job does. */
function useOwn(name: string, packages: string[], wanted: boolean): Recipe | undefined {
  const query = new URLSearchParams(packages.map((address) => ["py_modules", address]));
  const settled = useSettled(`/v1/recipes/${encodeURIComponent(name)}?${query}`, 600);
  const { data } = useQuery({
    queryKey: ["own-recipe", settled],
    queryFn: ({ signal }) => get<Recipe>(settled, signal),
    enabled: wanted && name !== OWN && CLASS.test(name),
    staleTime: Infinity,
  });
  return wanted && data?.name === name ? data : undefined;
}

interface ChoiceProps {
  recipes: Recipe[];
  known: Recipe | undefined;
  onChoose: (name: string) => void;
}

function RecipeChoice({ recipes, known, onChoose }: ChoiceProps): ReactNode {
  return (
    <div className="field">
      <label htmlFor="recipe-choice">task</label>
      <select id="recipe-choice" value={known?.name ?? OWN} onChange={(event) => onChoose(event.target.value)}>
        {recipes.map((recipe) => (
          <option key={recipe.name}>{recipe.name}</option>
        ))}
        <option value={OWN}>a class of my own</option>
      </select>
    </div>
  );
}
